"""A question of the page as a request to `smolrgpt serve`, which answers it alike: JSON, Python with OpenAI's client, curl."""

import base64
import io
import json
import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from smolrgpt_jax.data.masks import RLE

ADDRESS = "http://127.0.0.1:8000/v1"
_KEY = "SMOLRGPT_API_KEY"

File = bytes | Path  # a picture file, or where it is


def chat_body(
    model: str, picture: File, depth: File | None, question: str, regions: Sequence[RLE], max_new_tokens: int
) -> dict[str, Any]:
    """The body of the request; model: as the server names it; question: with a `<mask>` for each region."""
    files = [picture] if depth is None or not regions else [picture, depth]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _data_url(file)}} for file in files]
    parts.append({"type": "text", "text": question})
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": max_new_tokens}
    masks = [region.as_coco() for region in regions]
    return body | ({"regions": masks} if masks else {})


def as_json(body: dict[str, Any], address: str = ADDRESS) -> str:
    return json.dumps(body, indent=2)


def as_python(body: dict[str, Any], address: str = ADDRESS) -> str:
    arguments = {name: value for name, value in body.items() if name != "regions"}
    if "regions" in body:
        arguments["extra_body"] = {"regions": body["regions"]}
    return f"""import os

from openai import OpenAI

request = {pprint.pformat(arguments, sort_dicts=False, width=120)}
client = OpenAI(base_url={address!r}, api_key=os.environ.get({_KEY!r}, "none"))
reply = client.chat.completions.create(**request)
print(reply.choices[0].message.content)
"""


def as_curl(body: dict[str, Any], address: str = ADDRESS) -> str:
    # Pictures are longer than an argument may be.
    return f"""curl -sS {address}/chat/completions -H 'Content-Type: application/json' \\
    -H "Authorization: Bearer ${{{_KEY}:-none}}" --data-binary @- <<'REQUEST'
{json.dumps(body)}
REQUEST
"""


FORMS = {"JSON": as_json, "Python": as_python, "curl": as_curl}


def _data_url(file: File) -> str:
    content = file if isinstance(file, bytes) else file.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        kind = Image.MIME.get(picture.format or "", "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
