// The browser of decisions. All texts become text nodes: nothing in a question is markup.
(() => {
  "use strict";
  const PRINTED = 3;
  const data = JSON.parse(document.getElementById("decisions").textContent);
  const controls = document.querySelector(".controls");
  const view = document.querySelector(".decision");
  const place = document.querySelector(".place");
  const jump = controls.querySelector("input");
  let filter = "";
  let index = 0;

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  const picture = (id) => {
    const [image, question] = data.examples[id];
    const made = element("img");
    made.src = data.images[image];
    made.alt = `image of example ${id}: ${question}`;
    return made;
  };

  const verdict = ([shot, answer, right, score]) =>
    element(
      "p", `verdict ${right ? "right" : "wrong"}`,
      element("span", "label", `after ${shot}: `),
      element("strong", "", answer === "" ? "(nothing)" : answer),
      element("br"), `${right ? "✓ right" : "✗ wrong"}, score ${score.toFixed(2)}`);

  const tile = (id, number, logProb, kind, answered) => {
    const [, question, answer] = data.examples[id];
    const note = (logProb === undefined ? "" : `, p = ${Math.exp(logProb).toFixed(2)}`) +
      (kind === undefined ? "" : `, ${kind}`);
    const made = element(
      "li", "tile", picture(id),
      element("p", "demo", element("span", "label", `${number}. ${id}${note}`), element("br"),
        question, element("br"), element("strong", "", answer)));
    if (answered) made.append(verdict(answered));
    return made;
  };

  const tiles = (pointer, kinds, choice, answers) =>
    element("ol", "tiles", ...pointer.map((id, i) =>
      tile(id, i + 1, choice.logProbs[i], kinds[i], answers.find(([shot]) => shot === i + 1))));

  const chosen = (choice) => {
    const made = element("section", "choice", element("h3", "", `${data.names[choice.method]} `,
      element("span", "label", choice.seed === null ? "" : `seed ${choice.seed}`)));
    if (choice.pointers[0].length === 0) {
      made.append(...choice.answers.map(verdict));
    } else if (choice.pointers.length === 1) {
      made.append(tiles(choice.pointers[0], choice.kinds[0], choice, choice.answers));
    } else {
      made.append(element("p", "label", "searched again for every number of demonstrations"));
      choice.pointers.forEach((pointer, i) =>
        made.append(tiles(pointer, choice.kinds[i], choice, [choice.answers[i]])));
    }
    return made;
  };

  const decision = (item) => {
    const answers = item.answers.map(([answer, count]) => `${answer} (${count})`).join(", ");
    return element("article", "",
      element("div", "query", picture(item.id),
        element("div", "", element("p", "asked", data.examples[item.id][1]),
          element("p", "label", [`question ${item.id}`, item.needs].filter(Boolean).join(", ")),
          element("p", "", "people answer: ", element("strong", "", answers)))),
      ...item.choices.map(chosen));
  };

  const listed = () => data.decisions.filter((d) => !filter || d.flags.includes(filter));

  const show = (keepHash) => {
    const items = listed();
    index = Math.max(0, Math.min(index, items.length - 1));
    controls.querySelectorAll("[data-filter]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter)));
    controls.querySelector('[data-move="-1"]').disabled = index === 0;
    controls.querySelector('[data-move="1"]').disabled = index >= items.length - 1;
    place.textContent = items.length ? `${index + 1} of ${items.length}` : "none";
    if (items.length === 0) {
      view.replaceChildren(element("p", "", "No question on this page is like that."));
      return;
    }
    jump.value = items[index].id;
    view.replaceChildren(decision(items[index]));
    if (!keepHash) history.replaceState(null, "", `#q${items[index].id}`);
  };

  const jumpTo = (id) => {
    const at = data.decisions.findIndex((d) => String(d.id) === id);
    if (at < 0) {
      place.textContent = `question ${id} is not on this page: lever-plus show ${id}`;
      return;
    }
    filter = "";
    index = at;
    show();
  };

  const follow = () => {
    const named = /^#q(-?\d+)$/.exec(location.hash);
    if (named) jumpTo(named[1]);
  };

  controls.addEventListener("click", ({ target }) => {
    if (target.dataset.filter !== undefined) {
      filter = target.dataset.filter;
      index = 0;
      show();
    } else if (target.dataset.move) {
      index += Number(target.dataset.move);
      show();
    }
  });
  jump.addEventListener("change", () => jumpTo(jump.value.trim()));
  addEventListener("hashchange", follow);

  controls.hidden = false;
  controls.querySelector("datalist").append(...data.decisions.map((d) => {
    const option = element("option");
    option.value = d.id;
    return option;
  }));
  document.querySelector(".printed").append(...data.decisions.slice(0, PRINTED).map(decision));
  show(true);
  follow();
})();
