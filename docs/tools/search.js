// Options are searched as they are written: the search takes a dash before a word for "without it".
document.addEventListener(
  "keyup",
  ({ target }) => {
    if (target.matches("[data-md-component=search-query]")) {
      const plain = target.value.replace(/(^|\s)--?(?=\w)/g, "$1");
      if (plain !== target.value) target.value = plain;
    }
  },
  { capture: true },
);
