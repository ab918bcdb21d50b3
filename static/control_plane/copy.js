// Buttons that copy a text of the page.
async function copy(element) {
    if (navigator.clipboard) {
        await navigator.clipboard.writeText(element.textContent);
        return;
    }
    // Without TLS a browser has no clipboard to offer; the selection is copied instead.
    getSelection().selectAllChildren(element);
    document.execCommand("copy");
}

for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", async () => {
        await copy(document.getElementById(button.dataset.copies));
        button.textContent = "Copied";
    });
}
