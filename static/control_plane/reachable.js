// The theme makes buttons of elements that no keyboard reaches and no screen reader names. Here they become buttons.
const NAMES = {
    arrow_back: "Go back",
    close: "Close",
    computer: "Light or dark",
    dark_mode: "Light or dark",
    dock_to_right: "Show or hide the menu",
    light_mode: "Light or dark",
    more_horiz: "More",
    more_vert: "More",
    search: "Search",
};
const NATIVE = "a[href], button, input, select, textarea, summary, label";
const ICON = ".material-symbols-outlined";
const FILTERS = "filterOpen = true";

// What shows nothing but icons is named by its title, or by the first of them.
function name(element) {
    const bare = element.cloneNode(true);
    bare.querySelectorAll(ICON).forEach((icon) => icon.remove());
    if (element.ariaLabel || bare.querySelector("img") || (bare.textContent.trim() && !element.matches(ICON))) {
        return;
    }
    const drawn = (element.matches(ICON) ? element : element.querySelector(ICON)).textContent.trim();
    element.ariaLabel = element.title || NAMES[drawn] || drawn.replaceAll("_", " ");
}

function makeButton(element) {
    // What is empty lies behind something that Escape closes; what is a control already needs nothing.
    if (element.matches(NATIVE) || element.childElementCount + element.textContent.trim().length === 0) {
        return;
    }
    element.setAttribute("role", "button");
    element.tabIndex = 0;
    if (element.matches(ICON)) {
        name(element);
    }
}

// A field that suggests is drawn beside its own, which is hidden: its label has to name what is drawn.
function label(drawn) {
    const field = drawn.closest(".select2")?.previousElementSibling;
    const words = field?.labels?.[0];
    const value = drawn.querySelector(".select2-selection__rendered");
    value?.removeAttribute("role");
    value?.removeAttribute("aria-readonly");
    if (words && value) {
        words.id ||= `${field.id}_label`;
        drawn.setAttribute("aria-labelledby", `${words.id} ${value.id}`);
    } else {
        drawn.removeAttribute("aria-labelledby");
        drawn.ariaLabel = column(drawn) || field?.name || "";
    }
}

// In a table of fields the column's head names each.
const column = (element) => element.closest("td")?.dataset.label || "";

function mend() {
    // An icon is a word in a font that draws it: nothing to read aloud.
    document.querySelectorAll(".material-symbols-outlined:not([aria-hidden])").forEach((icon) => {
        const control = icon.closest("a, button, [role=button], [x-on\\:click]");
        if (control && control !== icon) {
            name(control);
        }
        if (control !== icon) {
            icon.ariaHidden = "true";
        }
    });
    document.querySelectorAll("[x-on\\:click]:not([role])").forEach(makeButton);
    document.querySelectorAll(".select2-selection[aria-labelledby^='select2-']").forEach(label);
    document.querySelectorAll(".formset :is(select, input:not([type=hidden])):not([aria-label])").forEach((field) => {
        if (!field.labels?.length && column(field)) {
            field.ariaLabel = column(field);
        }
    });
}

document.addEventListener("keydown", (event) => {
    if (event.target.matches("[role=button][x-on\\:click]") && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        event.target.click();
    }
});

// Lead to the first control of a panel that is about to show, within so many frames.
function lead(panel, frames) {
    const controls = [...panel.querySelectorAll("input:not([type=hidden]), select, a[href], button")];
    const first = controls.find((one) => one.checkVisibility());
    if (first) {
        first.focus();
    } else if (frames) {
        requestAnimationFrame(() => lead(panel, frames - 1));
    }
}

// The filters stand at the page's end: who opens them by keyboard is led there, and back when they close.
document.addEventListener("click", (event) => {
    const opener = event.target.closest(`[x-on\\:click="${FILTERS}"]`);
    const panel = document.getElementById("changelist-filter");
    if (opener && panel) {
        lead(panel, 20);
    }
});

document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && event.target.closest("#changelist-filter")) {
        document.querySelector(`[x-on\\:click="${FILTERS}"]`)?.focus();
    }
});

mend();
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });

// What scrolls by itself can be scrolled by keyboard, once there is something to scroll.
function scrollable() {
    document.querySelectorAll(".cp-code, .cp-scroll").forEach((one) => {
        if (one.scrollWidth > one.clientWidth) {
            one.tabIndex = 0;
        }
    });
}

addEventListener("load", scrollable);
addEventListener("resize", scrollable);

// A form that came back: the first field that is wrong has the focus, and its error is read with it.
addEventListener("load", () => {
    const wrong = document.querySelector("#content [aria-invalid=true], #login-form [aria-invalid=true]");
    const shown = wrong?.classList.contains("select2-hidden-accessible")
        ? wrong.nextElementSibling?.querySelector(".select2-selection")
        : wrong;
    shown?.focus();
});
document.getElementById("content")?.setAttribute("role", "main");
