// A box that checks or clears all boxes of a name.
for (const all of document.querySelectorAll("[data-all]")) {
    all.addEventListener("change", () => {
        for (const box of document.getElementsByName(all.dataset.all)) {
            box.checked = all.checked;
        }
    });
}
