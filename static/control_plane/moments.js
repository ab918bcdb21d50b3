// Times come from the server in UTC. Each becomes the reader's own here; its title keeps UTC.
// The element is as wide in either zone (admin.css), so that nothing on the page moves.
const two = (number) => String(number).padStart(2, "0");

function offset(when) {
    const minutes = -when.getTimezoneOffset();
    if (minutes === 0) {
        return "UTC";
    }
    const size = Math.abs(minutes);
    return `${minutes < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

function tell(element) {
    const when = new Date(element.dateTime);
    if (Number.isNaN(when.getTime()) || element.dataset.told) {
        return;
    }
    element.dataset.told = "yes";
    const day = `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;
    const time = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
    element.firstChild.data = `${day} ${time} `;
    element.querySelector(".cp-zone").textContent = offset(when);
}

const tellAll = () => document.querySelectorAll("time.cp-moment").forEach(tell);

tellAll();
// What a page fetches later has times, too.
new MutationObserver(tellAll).observe(document.body, { childList: true, subtree: true });
