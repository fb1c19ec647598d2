"""The demo page, served by its command in a process of its own, and what a person does and sees there."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

NEW_TOKENS = 12
PATIENCE = 120  # seconds; only a hang takes as long


@pytest.fixture(scope="session")
def page_data(tmp_path_factory):
    """Two scenes of the procedural warehouse."""
    from smolrgpt_jax.warehouse.parameters import WarehouseConfig
    from smolrgpt_jax.warehouse.write import make_warehouse

    folder = tmp_path_factory.mktemp("page") / "warehouse"
    make_warehouse(
        folder, WarehouseConfig(scenes=1, val_scenes=2, test_scenes=1, seed=3, width=320, height=180), workers=1
    )
    return folder


@contextlib.contextmanager
def served_page(folder, *options):
    """Its address; folder: where the process keeps its temporary files and its log."""
    log, temporary = folder / "stderr", folder / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "eval.page", *map(str, options), "--max_new_tokens", str(NEW_TOKENS)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NICEGUI_STORAGE_PATH": str(folder / "storage")}
    environment["TMPDIR"] = str(temporary)
    # It would make NiceGUI take itself for part of a test.
    environment.pop("PYTEST_CURRENT_TEST", None)
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=Path(__file__).parents[3]
        ) as server,
    ):
        try:
            found = next((match for line in server.stdout if (match := re.search(r"http://\S+", line))), None)
            assert found, log.read_text()
            yield found.group()
        finally:
            server.send_signal(signal.SIGINT)
            ended = server.wait(PATIENCE)
    assert ended == 0 and "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory):
    """Where the page of `address` keeps what it keeps."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def address(small_checkpoint, page_data, page_folder):
    with served_page(page_folder, "--checkpoint", small_checkpoint, "--data", page_data) as found:
        yield found


@pytest.fixture
def page(browser, address):
    browser.get(address)
    page = Page(browser)
    page.wait(lambda: page.one(".shown img").get_property("naturalWidth"))
    return page


class Page:
    """What a person does and sees."""

    def __init__(self, browser):
        self.browser = browser

    def wait(self, condition):
        return WebDriverWait(self.browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException]).until(
            lambda _: condition()
        )

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        return [element.text for element in self.browser.find_elements(By.CSS_SELECTOR, selector)]

    def button(self, label):
        return self.browser.find_element(By.XPATH, f"//button[contains(., '{label}')]")

    def at(self, x, y):
        """Moves the mouse to a place of the picture, in shares of its width and height."""
        image = self.one(".shown img")
        # Offsets count from the middle of what is visible, which must be all of it.
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        size = image.size
        offset = (round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"]))
        return ActionChains(self.browser, duration=50).move_to_element_with_offset(image, *offset)

    def answer(self):
        """The finished answer."""
        self.wait(lambda: self.one(".answer .text").is_displayed())
        self.wait(lambda: not self.browser.find_elements(By.CSS_SELECTOR, ".answer .wait, .answer .cursor"))
        return self.one(".answer .text").text

    def click(self, selector, number=0):
        """Clicks on the i-th of such elements, which may be built anew meanwhile."""
        self.wait(lambda: self.browser.find_elements(By.CSS_SELECTOR, selector)[number].click() or True)

    def write(self, question):
        self.one(".question textarea").send_keys(Keys.CONTROL, "a", Keys.NULL, question)

    def upload(self, kind, file):
        self.one(f".upload-{kind} input[type=file]").send_keys(str(file))

    def drawn(self):
        """The picture that is shown, uint8[H, W, 3]."""
        source = self.one(".shown img").get_attribute("src")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))), np.int16)

    def shown_regions(self, number):
        self.wait(lambda: self.texts(".chips .q-chip__content") == [f"Region {i}" for i in range(number)])

    def warning(self):
        """The sentence that the page says about something that cannot be done."""
        return self.wait(lambda: "".join(self.texts(".notice")))

    def drag_finger(self, x, y, x2, y2):
        """Draws with a finger between two places of the picture, in shares of its width and height."""
        script = "arguments[0].scrollIntoView({block: 'center'}); return Object.values(arguments[0].getBoundingClientRect().toJSON())"
        left, top, width, height, *_ = self.browser.execute_script(script, self.one(".shown img"))
        finger = ActionBuilder(self.browser, mouse=PointerInput("touch", "finger"), duration=100)
        places = [(round(left + share * width), round(top + down * height)) for share, down in ((x, y), (x2, y2))]
        finger.pointer_action.move_to_location(*places[0]).pointer_down().move_to_location(*places[1]).pointer_up()
        finger.perform()

    def move_fingers(self, ways):
        """Moves fingers over the picture at once, each (x, y, x2, y2) in shares of its width and height; the page may scroll and zoom."""
        box = self.browser.execute_script(
            "return arguments[0].getBoundingClientRect().toJSON()", self.one(".shown img")
        )

        def touch(kind, fingers):
            points = [
                {"id": i, "x": box["left"] + x * box["width"], "y": box["top"] + y * box["height"]}
                for i, (x, y) in enumerate(fingers)
            ]
            self.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        for number in range(len(ways)):
            touch("touchStart", [way[:2] for way in ways[: number + 1]])
        for share in np.linspace(0, 1, 9)[1:]:
            touch("touchMove", [np.array(way[:2]) * (1 - share) + np.array(way[2:]) * share for way in ways])
        touch("touchEnd", [])


class Connection:
    """A way to a port of this machine that can be cut off; `url` leads there."""

    def __init__(self, port):
        self._open, self._is_cut = [], threading.Event()
        way = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                if not way._is_cut.is_set():
                    with socket.create_connection(("127.0.0.1", port)) as there:
                        way._open += [self.request, there]
                        back = threading.Thread(target=pump, args=(there, self.request))
                        back.start()
                        pump(self.request, there)
                        back.join()

        def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := source.recv(2**16):
                    sink.sendall(data)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def cut(self):
        self._is_cut.set()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self._is_cut.clear()

    def close(self):
        self.cut()
        self._server.shutdown()
        self._server.server_close()


def printable(text):
    """The words of a text, without what a browser does not show."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
