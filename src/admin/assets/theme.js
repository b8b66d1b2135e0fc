// Sets the chosen colours before anything is drawn; without a choice the system's apply. Loaded first, not as a module.
'use strict';
{
  const KEY = 'nightbus-theme';
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem(KEY) ?? '';
    } catch {
      return ''; // Storage may be forbidden; then the choice lasts as long as the page.
    }
  };
  const apply = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  apply(kept());
  document.addEventListener('DOMContentLoaded', () => {
    const choice = document.getElementById('theme');
    choice.value = kept();
    choice.addEventListener('change', () => {
      apply(choice.value);
      try {
        localStorage.setItem(KEY, choice.value);
      } catch {
        // See above.
      }
    });
  });
}
