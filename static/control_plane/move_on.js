// What a form has just done must not be done again by a reload: the address becomes that of the page that comes after.
history.replaceState(null, "", document.querySelector("[data-after]").dataset.after);
