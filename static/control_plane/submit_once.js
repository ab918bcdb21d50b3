// A second click on a slow button must not make a second key, policy or change.
const PATIENCE_MS = 10000;
const sent = new WeakSet();

document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) {
        return;
    }
    if (sent.has(form)) {
        event.preventDefault();
        return;
    }
    sent.add(form);
    // An answer that leaves the page where it is, such as a download, must not leave a dead form behind.
    setTimeout(() => sent.delete(form), PATIENCE_MS);
});

// A page that comes back from the browser's memory can be submitted anew.
addEventListener("pageshow", () => {
    for (const form of document.forms) {
        sent.delete(form);
    }
});
