"""The page at ``/`` in a real browser, as a person meets it."""

import base64
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from tests.processes import until

#: Written down from before the page's own scripts run.
_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""
#: Text whose colour is too near its ground (WCAG 2.2, 1.4.3: 4.5 to 1).
_FAINT = r"""
const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
const light = (colour) => {
  const [r, g, b] = parts(colour).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if ((parts(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const faint = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  seen += 1;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 100));
}
return {seen, faint};
"""
_LISTED = 'return [...document.querySelectorAll("#recent .what")].map((one) => one.textContent)'
_TOO_WIDE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > width + 0.5)
  .map((one) => one.outerHTML.slice(0, 100));
"""


class ConsolePage:
    def __init__(self, window: WebDriver, url: str) -> None:
        self.window = window
        window.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _VIOLATIONS})
        self.go(url)

    def go(self, url: str) -> None:
        """Open the page at another address; a tab that has had no key there."""
        self.window.get(f"{url}/openapi.json")  # where no script of the page is at work
        self.window.execute_script("sessionStorage.clear()")
        self.window.get(url)
        self.window.get_log("browser")

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def find(self, name: str) -> WebElement:
        return self.window.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """What an element says, seen or not, space for space."""
        return str(self.find(name).get_property("textContent"))

    def shown(self, name: str) -> bool:
        return self.find(name).is_displayed()

    def enter(self, key: str) -> None:
        self.write("key", key)
        self.find("key").send_keys(Keys.ENTER)

    def unlock(self, key: str) -> None:
        self.enter(key)
        until(lambda: self.shown("desk"), 10, "the key is good")

    def write(self, name: str, text: str) -> None:
        field = self.find(name)
        field.clear()
        field.send_keys(text)

    def ask(self, prompt: str, **fields: str) -> None:
        for name, value in fields.items():
            if name in ("model", "priority"):
                Select(self.find(name)).select_by_value(value)
            else:
                self.write(name, value)
        self.write("prompt", prompt)
        self.find("prompt").send_keys(Keys.CONTROL, Keys.ENTER)

    def until_state(self, state: str) -> None:
        until(lambda: self.find("job-status").get_attribute("data-state") == state, 30, f"the job is {state}")

    def details(self) -> dict[str, str]:
        """What is said of the job, in one look: it may change at any time."""
        script = 'return [...document.querySelectorAll("#details > div")].map((one) => one.innerText.split("\\n"))'
        return dict(self.window.execute_script(script))

    def rows(self) -> list[WebElement]:
        return self.window.find_elements(By.CSS_SELECTOR, "#recent button")

    def listed(self) -> list[str]:
        """What the rows of the recent jobs say besides state and time."""
        return list(self.window.execute_script(_LISTED))

    def focused(self) -> str:
        return str(self.window.execute_script("return document.activeElement.id"))

    def nameless(self) -> list[str]:
        """Roles of what can be operated and has no name for who cannot see it."""
        nodes = self.window.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = {"textbox", "combobox", "checkbox", "button", "link"}
        found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
        assert len(found) > 2
        return [node["role"]["value"] for node in found if not node["name"]["value"]]

    def faint(self) -> list[str]:
        found: dict[str, Any] = self.window.execute_script(_FAINT)
        assert found["seen"] > 5
        return list(found["faint"])

    def too_wide(self) -> list[str]:
        return list(self.window.execute_script(_TOO_WIDE))

    def complaints(self, *, refusals: bool = False) -> list[Any]:
        """What the browser complained of since the last time; calls that failed only where none should."""
        said = [entry for entry in self.window.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        if refusals:
            said = [entry for entry in said if entry["source"] != "network"]
        return said + list(self.window.execute_script("return violations"))

    def picture(self, file: Path) -> None:
        """Save the whole page, however long."""
        width, height = self.window.execute_script(
            "const page = document.documentElement; return [page.clientWidth, page.scrollHeight]"
        )
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.window.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(taken["data"]))
