"""Wordings of questions and answers, a selection from the grammar of the published data set
(nvidia/PhysicalAI-Spatial-Intelligence-Warehouse, NVIDIA, CC-BY-4.0), so that what learns here can read it.

Places in braces are filled with masks, region names and words like "leftmost".
"""

from __future__ import annotations

LEFT_OR_RIGHT = (
    "Is the {noun} <mask> to the left or right of the {noun} <mask>?",
    "From the image's perspective, is the {noun} <mask> situated on the left or right of the {noun} <mask>?",
    "Is the {noun} <mask> positioned on the left or right side of the {noun} <mask> relative to the observer?",
    "From this viewpoint, does the {noun} <mask> appear on the left or right side of the {noun} <mask>?",
)
IS_IT_THERE = (
    "Is the {noun} <mask> to the {side} of the {noun} <mask> from the image's perspective?",
    "From this viewpoint, does the {noun} <mask> appear on the {side}-hand side of the {noun} <mask>?",
    "Can you confirm if the {noun} <mask> is positioned to the {side} of the {noun} <mask>?",
    "Looking from this perspective, is the {noun} <mask> to the {side} of the {noun} <mask>?",
)
SIDE_ANSWERS = (
    "The {noun} [Region 0] is to the {side} of the {noun} [Region 1].",
    "The {noun} [Region 0] is on the {side} side of the {noun} [Region 1].",
    "From this viewpoint, the {noun} [Region 0] is to the {side} of the {noun} [Region 1].",
)

# Openings of worked answers: which region a word like "leftmost" means.
NAMED = (
    "{region} is the {which} {noun}. ",
    "From this viewpoint, {region} is the {which} {noun}. ",
    "Among the {nouns}, {region} is the {which} {noun}. ",
)

SHELF = "The shelf {shelf} is the shelf on the {side}. "
DISTANCE_OF_TWO = (
    "What is the distance between the pallet <mask> and the pallet <mask>?",
    "How far is the pallet <mask> from the pallet <mask>?",
    "Tell me the distance between the pallet <mask> and the pallet <mask>.",
    "Can you give me an estimation of the distance between the pallet <mask> and the pallet <mask>?",
    "How far apart are the pallet <mask> and the pallet <mask>?",
)
DISTANCE_OF_TWO_ANSWERS = (
    "The pallet [Region 0] is {metres} meters from the pallet [Region 1].",
    "The pallet [Region 0] and the pallet [Region 1] are {metres} meters apart.",
    "The distance of the pallet [Region 0] from the pallet [Region 1] is {metres} meters.",
)
DISTANCE_OF_EXTREMES = (
    "How far is the leftmost pallet from the rightmost pallet among the pallets {pallets}?",
    "Among the pallets {pallets}, how much distance is there between the leftmost pallet and the rightmost pallet?",
    "Measure the distance between the leftmost pallet and the rightmost pallet among the pallets {pallets}.",
)
DISTANCE_TO_BUFFER = (
    "Given the buffer regions {buffers} and the pallets {pallets}, how far is the {which} pallet from the {where} buffer region?",
    "Among the buffer regions {buffers} and pallet masks {pallets}, tell me the distance between the {which} pallet and the {where} buffer region.",
    "Considering the buffer regions {buffers} and the pallets {pallets}, how much distance is there between the {which} pallet and the {where} buffer region?",
)
DISTANCE_TO_SHELF = (
    "Among the pallets {pallets}, how far is the {which} pallet from the shelf <mask>?",
    "Given the pallets {pallets}, what is the distance between the {which} pallet and the shelf <mask>?",
    "Considering the pallets {pallets}, how much distance is there between the {which} pallet and the shelf <mask>?",
)
DISTANCE_TO_ONE_SHELF = (
    "Given the pallets {pallets} and the shelves {shelves}, what is the distance between the {which} pallet and the shelf on the {side}?",
    "How far apart are the {which} pallet and the shelf on the {side} among the pallets {pallets} and shelves {shelves}?",
)
EXTREMES = tuple(
    start + "{left} is the leftmost pallet, and {right} is the rightmost pallet. "
    for start in ("", "From this viewpoint, ", "Looking from this angle, ")
)
DISTANCE_OF_TRANSPORTER = (
    "What is the distance between transporter <mask> and the {where} buffer area in {buffers}?",
    "How far is transporter <mask> from the {where} buffer region among {buffers}?",
    "Among the buffer zones {buffers}, how far is transporter <mask> from the {where} buffer zone?",
)
DISTANCE_ANSWERS = (
    "The distance between {a} and {b} is {metres} meters.",
    "There is a distance of {metres} meters between {a} and {b}.",
    "The distance from {a} to {b} is {metres} meters.",
)
INSIDE_ANSWERS = ("The distance between {a} and {b} is 0 meters.", "{A} is inside {b}, so the distance is 0 meters.")

COUNT = (
    "Given the buffer masks {buffers} and pallet masks {pallets}, what is the count of pallets in the {where} buffer area?",
    "From the given buffer masks {buffers} and pallet masks {pallets}, how many pallets are within the {where} buffer zone?",
    "Among the given buffer masks {buffers} and pallet masks {pallets}, how many pallets are stored in the {where} buffer?",
)
COUNT_AT_SHELF = (
    "Given the buffer masks {buffers} and pallet masks {pallets}, how many pallets can be found in the buffer region closest to the shelf <mask>?",
    "Among the given buffer masks {buffers} and pallet masks {pallets}, how many pallets are stored in the buffer region closest to the shelf <mask>?",
)
COUNT_IN_ONE = (
    "Considering the pallets {pallets}, what is the total number of pallets in the buffer region <mask>?",
    "Given the pallets {pallets}, how many pallets are there in the buffer region <mask>?",
)
FOUND = (
    "The {pallets} {listed} {are} inside the buffer region {buffer}. ",
    "The {pallets} {listed} {are} located in the buffer region {buffer}. ",
)
NONE_FOUND = "There are no pallets inside the buffer region {buffer}. "
TOTALS = (
    "Therefore, there {are} {count} {pallets} in the buffer area {buffer}.",
    "Thus, the buffer region {buffer} holds a total of {count} {pallets}.",
    "Hence, in buffer area {buffer}, there {are} exactly {count} {pallets}.",
)

PALLET_FOR_ONE = (
    "Which pallet from {pallets} is the most suitable for the transporter at <mask> to pick up?",
    "Based on pallet positions in {pallets}, which one should the transporter at <mask> retrieve?",
    "Which pallet in {pallets} is the easiest for the transporter at <mask> to access?",
    "Among the pallets in {pallets}, which one is best positioned for pickup by the transporter in <mask>?",
)
TRANSPORTERS_FIRST = (
    "Considering the transporters {transporters} and the pallets {pallets}, which pallet is the optimal choice for an empty transporter to pick up?",
    "Given the available transporters {transporters} and pallets {pallets}, which pallet is the best choice for automated pickup by an empty transporter?",
)
PALLETS_FIRST = (
    "Among the pallets in {pallets}, which one is most suitable for an empty transporter in {transporters} to pick up automatically?",
    "Which pallet in {pallets} is the best candidate for automated retrieval by an available transporter in {transporters}?",
)
EMPTY = (
    "The transporter {transporter} is not carrying any boxes. ",
    "Among all the transporters, the transporter {transporter} is empty. ",
    "The transporter {transporter} is currently empty. ",
)
PALLET_ANSWERS = (
    "The pallet {pallet} is the closest to transporter {transporter}, so it is the most suitable choice for automated picking.",
    "Given that pallet {pallet} is the nearest to transporter {transporter}, it is the optimal choice to pick up.",
    "Because pallet {pallet} is the closest to transporter {transporter}, it is the most logical choice for automated pickup.",
)
BUFFER_NEAR = (
    "Among the buffer zones {buffers}, which one is closest to the shelf <mask>?",
    "Which buffer region from {buffers} has the smallest distance to the shelf <mask>?",
)
BUFFER_NEAR_ONE = (
    "Among the buffer zones {buffers}, which buffer zone is closest to the shelves on the {side} among {shelves}?",
    "In the given buffer zones {buffers}, which one is the nearest to the shelves on the {side} among {shelves}?",
)
BUFFER_ANSWERS = (
    "The buffer area {buffer} is nearest to the shelf {shelf}.",
    "The buffer region {buffer} is the closest to the shelf {shelf}.",
)
OUTERMOST = (
    "Among the {noun} <mask>, the {noun} <mask>, and the {noun} <mask>, which one appears on the {which} side?",
    "Looking from this perspective, which of the {noun} <mask>, the {noun} <mask>, and the {noun} <mask> is the {which}?",
    "Which object is the {which} among the {noun} <mask>, the {noun} <mask>, and the {noun} <mask> from this viewpoint?",
)
OUTERMOST_ANSWERS = ("The {noun} {region} is the {which}.", "From this viewpoint, the {noun} {region} is the {which}.")
