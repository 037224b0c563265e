"""A panel on the page: what is seen of it, and its controls under a reader's mouse."""

from collections.abc import Callable

READ = """panel => {
    const words = panel.querySelector('.convkit-words'), image = panel.querySelector('img');
    const drawn = panel.querySelector('svg.convkit-drawing [role=img]');
    let hash = 0;
    for (const letter of drawn?.innerHTML ?? image?.src ?? '') hash = (31 * hash + letter.charCodeAt(0)) | 0;
    return {
        words: words?.innerText ?? '',
        alert: words?.getAttribute('role') === 'alert',
        alt: drawn?.getAttribute('aria-label') ?? image?.alt ?? '',
        picture: hash,
    };
}"""

LABELS = """([root, kinds]) => [...root.querySelectorAll(kinds)].map(part => [
    part.className,
    part.innerText,
    part.querySelector('label')?.innerText || part.querySelector('[title]')?.title || part.title || '',
])"""


def late() -> type[Exception]:
    """What playwright raises after a wait; the tests are collected without playwright, too."""
    from playwright.sync_api import TimeoutError

    return TimeoutError


class PanelView:
    """A panel as the reader sees it; controls are found by their label."""

    def __init__(self, reader, root) -> None:
        self.reader, self.root, self.page = reader, root, reader.page

    def seen(self) -> dict:
        """Its ``words``, whether they are an ``alert``, the ``alt`` text, and a hash of the ``picture``."""
        return self.until("true")

    def until(self, condition: str, **known: object) -> dict:
        """What is seen once the condition holds of ``now`` and of what is ``known``; both are written in JavaScript."""
        where = (
            f"([panel, {{{', '.join(known)}}}]) => {{ const now = ({READ})(panel); return ({condition}) && [now]; }}"
        )
        try:
            seen = self.page.wait_for_function(where, arg=[self.root.element_handle(), known])
        except late():
            raise AssertionError(f"it did not come to {condition} with {known}: {self.seen()['words']}") from None
        return seen.json_value()[0]

    def wait_change(self, before: dict, label: str = "the control") -> dict:
        """What is seen once all is done; it must differ from ``before``."""
        after = self.settle()
        assert after != before, f"{label!r} changed nothing: {before['words']}"
        return after

    def wait_for(self, state: dict, label: str) -> None:
        """Wait until Reset has done its work, which must bring ``state`` back."""
        assert self.settle() == state, f"Reset did not undo {label!r}: {self.seen()['words']}"

    def settle(self) -> dict:
        """What is seen once the page has dealt with the kernel's answers to all that was moved.

        The alt text must be that of the words, unless these are a red sentence about a picture that stays.
        """
        self.reader.wait_idle()
        return self.until("now.alert || now.alt === now.words")  # a training goes on, its picture before its words

    def control(self, label: str):
        """The control with this description."""
        return next(part for kind, name, part in self.controls() if name == label)

    def controls(self) -> list[tuple[str, str, object]]:
        """(kind, label, part of the page) of every control, in order; buttons come with their text."""
        kinds = {
            "slider": ".widget-slider",
            "choice": ".widget-dropdown",
            "toggle": ".widget-checkbox",
            "text": ".widget-text",
            "button": "button.widget-button",
        }
        parts = self.root.locator(", ".join(kinds.values()))
        # One look at the page for all: controls come and go while a panel trains.
        seen = self.reader.ask(LABELS, [self.root.element_handle(), ", ".join(kinds.values())])
        found = []
        for number, (classes, text, label) in enumerate(seen):
            kind = next(kind for kind, selector in kinds.items() if selector.rpartition(".")[2] in classes.split())
            found.append((kind, (text if kind in ("button", "toggle") else label).strip(), parts.nth(number)))
        return found

    def drag(self, slider, fraction: float) -> None:
        """Drag the handle with the mouse to this fraction of the track."""
        slider.scroll_into_view_if_needed()
        handle = slider.locator(".noUi-handle").first.bounding_box()
        track = slider.locator(".noUi-base").first.bounding_box()
        height = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, height)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + track["width"] * fraction, height, steps=6)
        self.page.mouse.up()

    def pick(self, dropdown, option: int | str) -> None:
        """Choose in a drop-down list, by place or by text."""
        how = {"index": option} if isinstance(option, int) else {"label": option}
        dropdown.locator("select").select_option(**how)

    def tick(self, checkbox) -> None:
        checkbox.locator("input").click()

    def type(self, field, text: str) -> None:
        entry = field.locator("input")
        entry.click()
        entry.fill(text)
        entry.press("Enter")

    def reset(self) -> None:
        self.root.get_by_role("button", name="Reset", exact=True).click()

    def moves(self, kind: str, part) -> list[Callable[[], None]]:
        """What a reader can do with a control: drag to both ends, choose two other options, tick, type, press."""
        if kind == "slider":
            handle = part.locator(".noUi-handle").first
            now, low, high = (float(handle.get_attribute(f"aria-value{name}")) for name in ("now", "min", "max"))
            return [lambda end=end: self.drag(part, end) for end in (0, 1) if now != (low, high)[end]]
        if kind == "choice":
            select = part.locator("select")
            options = select.locator("option").count()
            now = self.reader.ask("select => select.selectedIndex", select.element_handle())
            others = [option for option in range(options) if option != now]
            return [
                lambda option=option: self.pick(part, option) for option in dict.fromkeys((*others[:1], *others[-1:]))
            ]
        if kind == "text":
            return [lambda: self.type(part, f"{float(part.locator('input').input_value()) + 0.5:g}")]
        return [lambda: self.tick(part) if kind == "toggle" else part.click()]

    def move_everything(self) -> None:
        """Make the moves of every control, see the picture or the words change each time, and see Reset undo them."""
        first = before = self.settle()
        controls = self.controls()
        kinds = [kind for kind, _, _ in controls] + [""]
        for place, (kind, label, part) in enumerate(controls):
            moves = [] if label == "Reset" else self.moves(kind, part)
            assert moves or label == "Reset", f"{label!r} has only one state"
            for move in moves:
                move()
                before = self.wait_change(before, label)
                assert "bug in the panel" not in before["words"], f"{label!r}: {before['words']}"
            if moves and not kind == kinds[place + 1] == "text":  # the fields of a grid are filled one after the other
                self.reset()
                self.wait_for(first, label)
                before = first
