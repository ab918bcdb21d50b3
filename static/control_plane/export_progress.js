// While an export is under way, its page shows how far it is.
const PAUSE_MS = 1000;

function show(fresh) {
    const shown = document.getElementById("export");
    if (fresh.innerHTML === shown.innerHTML) {
        return;
    }
    const hadFocus = shown.contains(document.activeElement);
    shown.innerHTML = fresh.innerHTML;
    if (!("underWay" in fresh.dataset)) {
        delete shown.dataset.underWay;
    }
    if (hadFocus) {
        shown.querySelector("button")?.focus();
    }
}

async function look() {
    try {
        const answer = await fetch(location.href, { credentials: "same-origin" });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("export");
        if (answer.ok && fresh) {
            show(fresh);
        }
    } catch {
        // The server may be away for a moment; the next look tells.
    }
    lookLater();
}

function lookLater() {
    if (document.getElementById("export")?.matches("[data-under-way]")) {
        setTimeout(look, PAUSE_MS);
    }
}

lookLater();
