// The official JavaScript client, as anybody uses it, against plimsoll: BASE_URL OPERATOR_TOKEN VIEWER_TOKEN.
//
// Ends with 0 if all that it sees is as it should be. The test that runs it looks at the other side.

const assert = require('node:assert/strict');
const OpenAI = require('openai');

const [baseURL, operator, viewer] = process.argv.slice(2);
const SESSIONS = 50;
const client = new OpenAI({ baseURL, apiKey: operator });

const user = (content) => [{ role: 'user', content }];
const session = (name) => ({ headers: { 'x-plimsoll-session': name } });

async function fails(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor, kind, `${error}`);
    return error;
  }
  assert.fail(`${kind.name} was not thrown`);
}

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert.deepEqual(listed, ['a', 'b']);
  assert.equal((await client.models.retrieve('a')).owned_by, 'plimsoll');
}

async function answers() {
  const messages = [{ role: 'developer', content: 'be brief' }, ...user('hello')];
  const answer = await client.chat.completions.create({ model: 'a', messages, temperature: 0.2, max_tokens: 100 });
  assert.equal(answer.choices[0].message.content, 'You said: hello');
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.deepEqual(answer.usage, { prompt_tokens: 2, completion_tokens: 2, total_tokens: 4 });
  assert.equal(answer.id, `chatcmpl-${answer._request_id}`);
  const more = [...user('hello'), answer.choices[0].message, ...user('and now?')];
  assert.equal((await client.chat.completions.create({ model: 'a', messages: more })).usage.prompt_tokens, 3);
  const uncounted = await client.chat.completions.create({ model: 'a', messages: user('count nothing') });
  assert.equal(uncounted.usage, undefined);
}

async function streams() {
  const request = { model: 'a', messages: user('hi'), stream: true };
  const counted = await all(await client.chat.completions.create({ ...request, stream_options: { include_usage: true } }));
  assert.equal(counted[0].choices[0].delta.role, 'assistant');
  assert.equal(textOf(counted), 'You said: hi');
  assert.deepEqual([counted.at(-1).choices, counted.at(-1).usage.total_tokens], [[], 3]);
  const plain = await all(await client.chat.completions.create(request));
  assert.equal(plain.at(-1).choices[0].finish_reason, 'stop');
  assert.ok(plain.every((chunk) => chunk.usage === undefined));
  const runner = client.chat.completions.stream({ model: 'a', messages: user('hi') });
  assert.equal(await runner.finalContent(), 'You said: hi');
}

async function errors() {
  const create = (more, from = client) => from.chat.completions.create({ model: 'a', messages: user('hi'), ...more });
  const nobody = new OpenAI({ baseURL, apiKey: 'nonsense' });
  assert.equal((await fails(OpenAI.AuthenticationError, () => create({}, nobody))).code, 'invalid_api_key');
  const reader = new OpenAI({ baseURL, apiKey: viewer });
  await fails(OpenAI.PermissionDeniedError, () => create({}, reader));
  assert.equal((await fails(OpenAI.NotFoundError, () => create({ model: 'nobody' }))).param, 'model');
  await fails(OpenAI.NotFoundError, () => client.models.retrieve('nobody'));
  const refused = await fails(OpenAI.BadRequestError, () => create({ n: 2 }));
  assert.deepEqual([refused.code, refused.param, refused.type], ['unsupported_parameter', 'n', 'invalid_request_error']);
  // With the retries that a client makes by itself: the server's side counts one call.
  const failed = await fails(OpenAI.InternalServerError, () => create({ messages: user('fail') }));
  assert.deepEqual([failed.status, /out of order/.test(failed.message)], [502, true]);
  assert.ok(failed.requestID);
  const cut = await fails(OpenAI.APIError, async () => all(await create({ messages: user('cut'), stream: true })));
  assert.deepEqual([cut.code, cut.error.partial], ['provider_failed', 'Hel']);
  const late = { headers: { 'x-plimsoll-deadline-ms': '50' } };
  const hang = { model: 'a', messages: user('hang') };
  const passed = await fails(OpenAI.InternalServerError, () => client.chat.completions.create(hang, late));
  assert.deepEqual([passed.status, passed.code], [504, 'deadline_exceeded']);
}

// The lane has room again: what comes next in the session is answered.
async function free(name) {
  const answer = await client.chat.completions.create({ model: 'a', messages: user('next') }, session(name));
  assert.equal(answer.choices[0].message.content, 'You said: next');
}

async function cancels() {
  const hang = { model: 'a', messages: user('hang') };
  const stream = await client.chat.completions.create({ ...hang, stream: true }, session('cancelled'));
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content === 'Hel') break;
  }
  await free('cancelled');
  const controller = new AbortController();
  const aborted = client.chat.completions.create(hang, { ...session('cancelled'), signal: controller.signal });
  setTimeout(() => controller.abort(), 500);
  await fails(OpenAI.APIUserAbortError, () => aborted);
  await free('cancelled');
}

// One runs, one waits, and the third is refused; aborted, they leave nothing behind.
async function full() {
  const hang = { model: 'a', messages: user('hang') };
  const running = await client.chat.completions.create({ ...hang, stream: true }, session('full'));
  const controller = new AbortController();
  const waiting = client.chat.completions.create(hang, { ...session('full'), signal: controller.signal });
  waiting.catch(() => {});
  const impatient = { ...session('full'), maxRetries: 0, timeout: 200 };
  for (;;) {
    const error = await client.chat.completions.create(hang, impatient).then(assert.fail, (error) => error);
    // A third that came before the one that waits has left the lane again.
    if (error instanceof OpenAI.APIConnectionTimeoutError) continue;
    assert.equal(error.constructor, OpenAI.RateLimitError, `${error}`);
    assert.equal(error.code, 'lane_full');
    break;
  }
  controller.abort();
  running.controller.abort();
}

async function crowd() {
  const talk = async (number) => {
    for (let message = 0; message < 3; message++) {
      const text = `message ${message} of ${number}`;
      const request = { model: 'b', messages: user(text) };
      const said =
        number % 2 ?
          (await client.chat.completions.create(request, session(`s${number}`))).choices[0].message.content
        : textOf(await all(await client.chat.completions.create({ ...request, stream: true }, session(`s${number}`))));
      assert.equal(said, `You said: ${text}`);
    }
  };
  await Promise.all(Array.from({ length: SESSIONS }, (_, number) => talk(number)));
}

(async () => {
  for (const part of [models, answers, streams, errors, cancels, full, crowd]) await part();
  console.log('all as it should be');
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
