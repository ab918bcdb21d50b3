// Sends the form as a request, shows the answer as it comes, and then what its record says.
const LOOKS = 25;
const LOOK_MS = 200;
const form = document.getElementById("playground");
const cancel = document.getElementById("cancel");
const send = form?.querySelector("button[type=submit]");
const answer = document.getElementById("answer");
const line = document.getElementById("status");
const outcome = document.getElementById("outcome");

function say(text) {
    line.textContent = text;
}

function show(text) {
    answer.hidden = false;
    answer.append(text);
}

function begin() {
    answer.hidden = true;
    answer.replaceChildren();
    outcome.replaceChildren();
    for (const place of form.querySelectorAll("[data-error-of]")) {
        place.hidden = true;
    }
    send.disabled = true;
    cancel.disabled = false;
    say("Sending…");
}

function mark(fields) {
    for (const [name, text] of Object.entries(fields)) {
        const place = form.querySelector(`[data-error-of="${name}"]`);
        if (place) {
            place.textContent = text;
            place.hidden = false;
        }
    }
}

// One event of the stream: a piece of the answer, or an error in the middle of it.
function take(data) {
    if (data === "[DONE]") {
        return;
    }
    const said = JSON.parse(data);
    if (said.error) {
        say(said.error.message);
        return;
    }
    for (const choice of said.choices ?? []) {
        show(choice.delta?.content ?? "");
    }
}

async function follow(response) {
    say("The answer is coming…");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
        const { value, done } = await reader.read();
        if (done) {
            break;
        }
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
            if (event.startsWith("data: ")) {
                take(event.slice("data: ".length));
            }
        }
    }
    if (line.textContent === "The answer is coming…") {
        say("This is the whole answer.");
    }
}

async function readWhole(response) {
    const said = await response.json();
    if (said.error) {
        say(said.error.message);
        mark(said.error.fields ?? {});
        return;
    }
    say("This is the whole answer.");
    show((said.choices ?? []).map((choice) => choice.message?.content ?? "").join("\n\n"));
}

// The record is written when the request has ended: of one that was cancelled, a moment later.
async function explain(id) {
    const address = form.dataset.outcome.replace("00000000-0000-0000-0000-000000000000", id);
    for (let look = 0; look < LOOKS; look += 1) {
        const page = await fetch(address, { redirect: "manual" });
        if (page.status !== 204) {
            outcome.innerHTML = page.ok ? await page.text() : "";
            return;
        }
        await new Promise((done) => setTimeout(done, LOOK_MS));
    }
}

async function run(signal) {
    let id = "";
    try {
        const body = new URLSearchParams(new FormData(form));
        const response = await fetch(form.action, { method: "POST", body, signal, redirect: "manual" });
        if (response.type === "opaqueredirect") {
            say("Your session has ended. Load this page again to log in.");
            return;
        }
        id = response.headers.get("x-request-id") ?? "";
        const kind = response.headers.get("content-type") ?? "";
        if (kind.startsWith("text/event-stream")) {
            await follow(response);
        } else if (kind.startsWith("application/json")) {
            await readWhole(response);
            id = response.headers.has("x-not-sent") ? "" : id;
        } else {
            say(response.status === 403 ? "You may not do this any more. Load the page again." : "The server failed. Try again.");
            id = "";
        }
    } catch (error) {
        say(error.name === "AbortError" ? "Cancelled. What had come by then counts." : "The connection broke. Try again.");
    }
    if (id) {
        await explain(id);
    }
}

form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const controller = new AbortController();
    cancel.onclick = () => controller.abort();
    begin();
    await run(controller.signal);
    send.disabled = false;
    cancel.disabled = true;
});

// Models, policies and budgets are the application's.
form?.querySelector("[name=application]").addEventListener("change", (event) => {
    location.search = new URLSearchParams({ application: event.target.value });
});
