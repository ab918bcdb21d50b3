// Each template's sentence follows its answers: the server says it, as it says those of stored policies.
const PAUSE_MS = 250;
const UNCLEAR = "Fill in what is missing, or mend it.";
const form = document.getElementById("policy-templates");
let pause = 0;
let asked = 0;

async function say() {
    const body = new URLSearchParams(new FormData(form));
    body.set("preview", "1");
    const number = ++asked;
    const answer = await fetch(location.href, { method: "POST", body, redirect: "manual" });
    if (!answer.ok || number !== asked) {
        return;
    }
    const sentences = await answer.json();
    for (const template of form.querySelectorAll("[data-template]")) {
        const place = template.querySelector("[data-says]");
        if (place) {
            place.textContent = sentences[template.dataset.template] || UNCLEAR;
        }
    }
}

form.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(say, PAUSE_MS);
});
