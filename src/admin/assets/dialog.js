// Questions and short messages. The dialogs are the browser's own: they hold the focus, close with Escape and give the
// focus back to what opened them.
import { h, show } from './dom.js';

let number = 0;

/**
 * Asks before something is done. `act` runs while the dialog is open: its error is shown there, and the answer is not
 * lost. Gives whether it was done.
 */
export function confirm({ title, text, yes, no = 'Keep as it is', danger = false, act }) {
  const id = `dialog-${(number += 1)}`;
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true });
  const stay = h('button', { type: 'button', class: 'button', autofocus: true }, no);
  const go = h('button', { type: 'button', class: `button ${danger ? 'danger' : 'primary'}` }, yes);
  const dialog = h('dialog', { 'aria-labelledby': id, 'aria-describedby': `${id}-text` },
    h('h2', { id }, title),
    h('div', { id: `${id}-text` }, [].concat(text).map((line) => h('p', {}, line))),
    problem,
    h('div', { class: 'buttons' }, stay, go));
  document.body.append(dialog);
  return new Promise((resolve) => {
    let done = false;
    stay.addEventListener('click', () => dialog.close());
    go.addEventListener('click', async () => {
      go.disabled = true;
      show(problem, false);
      try {
        toast(await act());
        done = true;
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
        show(problem, true);
        go.disabled = false;
      }
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(done);
    });
    dialog.showModal();
  });
}

/** Asks for the admin token until `accept` takes one. There is nothing to see without it, so Escape does not help. */
export function askToken(accept) {
  if (document.getElementById('token-dialog')) return;
  const field = h('input', {
    id: 'token', type: 'password', autocomplete: 'current-password', required: true, autofocus: true,
    'aria-describedby': 'token-help token-problem',
  });
  const problem = h('p', { id: 'token-problem', class: 'problem', role: 'alert', hidden: true });
  const go = h('button', { type: 'submit', class: 'button primary' }, 'Open the dashboard');
  const form = h('form', {},
    h('h2', { id: 'token-title' }, 'This nightbus asks for its admin token'),
    h('label', { for: 'token' }, 'Admin token'),
    field,
    h('p', { id: 'token-help', class: 'quiet' },
      'It is the value of ', h('code', {}, 'admin.token'),
      ' in the configuration. It stays in this tab and is forgotten when the tab is closed.'),
    problem,
    h('div', { class: 'buttons' }, go));
  const dialog = h('dialog', { id: 'token-dialog', 'aria-labelledby': 'token-title' }, form);
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await accept(field.value);
      dialog.close();
      dialog.remove();
    } catch (error) {
      problem.textContent = error.status === 401 ? 'That is not the token. Check it and try again.' : error.message;
      show(problem, true);
      field.select();
    }
    go.disabled = false;
  });
  document.body.append(dialog);
  dialog.showModal();
}

let fading;
/** Says what was done, for some seconds. */
export function toast(message) {
  if (!message) return;
  const box = document.getElementById('toast');
  box.textContent = message;
  show(box, true);
  clearTimeout(fading);
  fading = setTimeout(() => show(box, false), 8_000);
}
