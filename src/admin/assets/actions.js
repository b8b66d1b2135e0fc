// What can be done from the page. Each asks first, says what will happen, and then what has happened.
import { act } from './api.js';
import { confirm } from './dialog.js';
import { count, counted } from './format.js';

/** Submits everything queued. `queue` is that of /api/status. */
export const flush = (queue) =>
  confirm({
    title: `Submit ${counted(queue.requests, 'queued request')} now?`,
    text: [
      'All lanes are sent to their providers at once, without waiting for more calls to ride along.',
      'They would leave by themselves when their lane is idle, full or old enough. What is submitted is billed.',
    ],
    yes: 'Submit now',
    no: 'Let them wait',
    act: async () => (await act('POST', '/api/flush')).message,
  });

/** Asks the provider to cancel a batch. */
export const cancelBatch = (batch) =>
  confirm({
    title: 'Cancel this batch?',
    text: [
      `${batch.id}: ${counted(batch.counts.total, 'request')}, ${count(batch.counts.completed)} of them done.`,
      'The provider is asked to stop. What it has finished is kept and billed; the rest is queued again.',
    ],
    yes: 'Cancel the batch',
    no: 'Let it run',
    danger: true,
    act: async () => (await act('POST', `/api/batches/${encodeURIComponent(batch.id)}/cancel`)).message,
  });

/** Withdraws a queued request. */
export const cancelRequest = (request) =>
  confirm({
    title: 'Cancel this request?',
    text: [
      `${request.id} is still queued. Its caller is answered with 410 and nothing is bought.`,
      'This cannot be undone.',
    ],
    yes: 'Cancel the request',
    no: 'Let it ride',
    danger: true,
    act: async () => {
      await act('DELETE', `/api/requests/${encodeURIComponent(request.id)}`);
      return 'The request is cancelled. Its caller is answered with 410.';
    },
  });

/** Decides over a test flight: `approve` or `reject`. */
export const decideFlight = (flight, verdict) =>
  confirm({
    title: verdict === 'approve' ? 'Approve this test flight?' : 'Reject this test flight?',
    text: verdict === 'approve'
      ? 'The requests that wait for it are submitted as a batch, although the checks had doubts.'
      : 'The requests that wait for it are answered with 422, so that nothing more is spent on them.',
    yes: verdict === 'approve' ? 'Approve and submit' : 'Reject and refuse',
    no: 'Decide later',
    danger: verdict === 'reject',
    act: async () => {
      const answer = await act('POST', `/api/flights/${encodeURIComponent(flight.id)}/${verdict}`);
      return answer?.message ?? `The flight is ${verdict === 'approve' ? 'approved' : 'rejected'}.`;
    },
  });
