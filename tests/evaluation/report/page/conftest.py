"""A headless browser, one for all tests of report.html; they skip where there is none."""

import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WORDS = (
    "--headless=new",
    "--no-sandbox",  # which root needs, as in containers; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
    # without network: no name is found, and only files are opened
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-background-networking",
)


@pytest.fixture(scope="session")
def browser():
    program = next((p for p in map(shutil.which, BROWSERS) if p), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with chromedriver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in WORDS:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    made = webdriver.Chrome(options=options, service=service)
    made.set_script_timeout(60)
    yield made
    made.quit()
