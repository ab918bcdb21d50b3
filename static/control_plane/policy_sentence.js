// What a policy will do, in a sentence, while its form is filled in. The server says it: one description serves everyone.
// The page works without: saving says what is wrong, and the policy's page what it does.
document.addEventListener("DOMContentLoaded", () => {
    const QUIET_MS = 250;
    const box = document.getElementById("policy-sentence");
    const form = box && box.closest("form");
    const touched = new Set();
    let waiting = 0;
    let asked = 0;

    function noteOf(field) {
        const id = `${field.id}-live`;
        let note = document.getElementById(id);
        if (!note) {
            note = document.createElement("p");
            note.id = id;
            note.className = "cp-field-error";
            field.insertAdjacentElement("afterend", note);
            field.setAttribute("aria-describedby", `${field.getAttribute("aria-describedby") || ""} ${id}`.trim());
        }
        return note;
    }

    function showError(field, message) {
        // A note that is there stays, empty, so that nothing below it moves twice.
        if (message || document.getElementById(`${field.id}-live`)) {
            noteOf(field).textContent = message;
            field.setAttribute("aria-invalid", message ? "true" : "false");
        }
    }

    function show(said) {
        box.querySelector("[data-sentence]").textContent = said.sentence || box.dataset.unfinished;
        box.classList.toggle("cp-unfinished", !said.sentence);
        for (const name of said.fields) {
            const field = form.elements[name];
            if (field instanceof HTMLElement) {
                showError(field, touched.has(name) ? said.errors[name] || "" : "");
            }
        }
    }

    async function ask() {
        const number = ++asked;
        try {
            const answer = await fetch(box.dataset.address, { method: "POST", body: new FormData(form) });
            // An older answer must not overwrite a newer one; without one, what stands there stays.
            if (answer.ok && number === asked) {
                show(await answer.json());
            }
        } catch {
            // The server cannot be reached just now: the next key asks again.
        }
    }

    function changed(event) {
        touched.add(event.target.name);
        clearTimeout(waiting);
        waiting = setTimeout(ask, QUIET_MS);
    }

    if (form) {
        form.addEventListener("input", changed);
        form.addEventListener("change", changed);
    }
});
