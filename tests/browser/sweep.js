// What a test asks of a page as it stands: moved, unreachable, unseen focus, times that nobody told the zone of.
({
    async settled() {
        await document.fonts.ready;
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    },

    moved() {
        return window.shifted;
    },

    overflow() {
        return document.documentElement.scrollWidth - document.documentElement.clientWidth;
    },

    // Of rows that are one like the other the first few are enough to judge, and the others take their time.
    thin() {
        const others = "tbody > tr:nth-child(n+5), section > details:nth-of-type(n+3), main > section:nth-of-type(n+4):not(:last-of-type)";
        document.querySelectorAll(others).forEach(one => one.remove());
    },

    // What looks like a control, and is not one that a keyboard reaches, nor part of one, nor around one.
    unreachable() {
        const reached = "a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex='-1'])";
        return [...document.querySelectorAll("[x-on\\:click], [onclick], [hx-get], [hx-post], .cursor-pointer")]
            .filter(one => one.checkVisibility() && !one.matches(reached))
            .filter(one => !one.closest(reached) && !one.querySelector(reached) && !one.control)
            .map(one => one.outerHTML.slice(0, 160));
    },

    // What says that something describes it, and nothing does.
    undescribed() {
        return [...document.querySelectorAll("[aria-describedby]")]
            .filter(one => one.getAttribute("aria-describedby").split(" ").some(id => !document.getElementById(id)))
            .map(one => one.outerHTML.slice(0, 160));
    },

    // How the texts beside the frame are drawn, as far as their classes and those around them say it.
    drawn(frame) {
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const drawn = new Set();
        while (texts.nextNode()) {
            const one = texts.currentNode.parentElement;
            if (texts.currentNode.data.trim() && !(frame && one.closest(frame))) {
                const around = [one, one.parentElement, one.parentElement?.parentElement];
                drawn.add(around.map(each => `${each?.tagName} ${each?.getAttribute("class")}`).join());
            }
        }
        return [...drawn];
    },

    unseen() {
        const looks = (one) => [one, one.parentElement, one.parentElement?.parentElement].filter(Boolean).map(each => {
            const style = getComputedStyle(each);
            return [style.outlineStyle, style.outlineWidth, style.boxShadow, style.borderColor].join();
        }).join(";");
        const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, [tabindex='0']")]
            .filter(one => one.checkVisibility() && !one.disabled && one.tabIndex >= 0);
        return controls.filter(one => {
            document.activeElement?.blur();
            const before = looks(one);
            one.focus({ preventScroll: true, focusVisible: true });
            return document.activeElement !== one || looks(one) === before;
        }).map(one => one.outerHTML.slice(0, 160));
    },

    untold() {
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const bare = [];
        while (texts.nextNode()) {
            const text = texts.currentNode, parent = text.parentElement;
            const found = /\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(?! UTC)/.test(text.data);
            if (found && !parent.closest("time, pre, code, script, .cp-value")) {
                bare.push(text.data.trim());
            }
        }
        const times = [...document.querySelectorAll("time")];
        return bare.concat(times.filter(one => !one.dataset.told || !one.title.startsWith("UTC")).map(one => one.outerHTML));
    },
})
