// A form whose answer takes seconds says so.
for (const form of document.querySelectorAll("form[data-busy]")) {
    form.addEventListener("submit", () => {
        form.querySelector("[data-busy-says]").hidden = false;
    });
}

addEventListener("pageshow", () => {
    for (const line of document.querySelectorAll("[data-busy-says]")) {
        line.hidden = true;
    }
});
