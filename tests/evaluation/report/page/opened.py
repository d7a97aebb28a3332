"""A report.html that is open in a browser, with what the tests ask of it."""

LATER = "return new Promise(r => requestAnimationFrame(() => setTimeout(r, 0)))"


class Page:
    """A page that is open, with what the tests ask of it."""

    def __init__(self, browser, path, *, pictures=True):
        self.browser = browser
        browser.get(path.as_uri())
        self.wait("return document.documentElement.dataset.ready === 'true'")
        if pictures:
            self.wait("return document.querySelectorAll('#pictures canvas').length > 0")

    def js(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition):
        for _ in range(400):
            if self.js(condition):
                return
            self.js(LATER)
        raise AssertionError(condition)

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector):
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return self.js(script, selector)

    def table(self, selector):
        """Rows of texts, the heading first."""
        script = """return [...document.querySelectorAll(arguments[0] + ' tr')].map(
            r => [...r.cells].map(c => c.textContent))"""
        return self.js(script, selector)

    def click(self, selector):
        self.js("arguments[0].scrollIntoView({block: 'center'})", element := self.one(selector))
        element.click()

    def choose(self, selector, value):
        script = """const e = document.querySelector(arguments[0]); e.value = arguments[1];
            e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'))"""
        self.js(script, selector, str(value))

    def traces(self, chart):
        script = "return document.getElementById(arguments[0]).data.map(t => t.name).filter(n => n)"
        return self.js(script, chart)

    def errors(self):
        return [e["message"] for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
