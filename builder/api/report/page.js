"use strict";
// A convenience: the page says everything without it. Links open the step that they lead to, buttons open many.
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
reveal();
const wanted = { all: () => true, none: () => false, ran: (step) => step.matches(".ran, .failed") };
for (const button of document.querySelectorAll("button[data-open]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const step of document.querySelectorAll("details.step")) step.open = wanted[button.dataset.open](step);
  });
}
