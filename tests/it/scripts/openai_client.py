"""The official Python client, as anybody uses it, against plimsoll: BASE_URL OPERATOR_TOKEN VIEWER_TOKEN.

Ends with 0 if all that it sees is as it should be. The test that runs it looks at the other side.
"""

import asyncio
import sys

import openai
from openai import AsyncOpenAI, OpenAI

BASE, OPERATOR, VIEWER = sys.argv[1:4]
SESSIONS = 50


def session(name):
    return {"x-plimsoll-session": name}


def user(text):
    return [{"role": "user", "content": text}]


def fails(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, type(error)
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def models(client):
    listed = client.models.list()
    assert [model.id for model in listed] == ["a", "b"], listed
    model = client.models.retrieve("a")
    assert (model.object, model.owned_by) == ("model", "plimsoll") and model.created > 1_700_000_000, model


def answers(client):
    answer = client.chat.completions.create(
        model="a",
        messages=[{"role": "system", "content": "be brief"}, *user("hello")],
        temperature=0.2,
        max_tokens=100,
        user="somebody",
    )
    choice = answer.choices[0]
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("You said: hello", "assistant", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 2, 4)
    assert answer.id == f"chatcmpl-{answer._request_id}" and answer.model == "a", answer

    # The conversation as clients keep it: what came back goes out again.
    more = [*user("hello"), choice.message.model_dump(), *user("and now?")]
    answer = client.chat.completions.create(model="a", messages=more)
    assert answer.usage.prompt_tokens == 3, answer
    answer = client.chat.completions.create(model="a", messages=user("count nothing"))
    assert answer.usage is None and answer.choices[0].message.content == "uncounted", answer


def streams(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="a", messages=user("hi"), stream=True, stream_options=options))
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: hi", text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 3, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    chunks = list(client.chat.completions.create(model="a", messages=user("hi"), stream=True))
    assert all(chunk.usage is None for chunk in chunks) and chunks[-1].choices[0].finish_reason == "stop"

    with client.chat.completions.stream(model="a", messages=user("hi"), stream_options=options) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    assert final.choices[0].message.content == "You said: hi" and final.usage.total_tokens == 3, final


def errors(client):
    def create(client=client, **more):
        return client.chat.completions.create(**{"model": "a", "messages": user("hi"), **more})

    error = fails(openai.AuthenticationError, lambda: create(client.with_options(api_key="nonsense")))
    assert error.code == "invalid_api_key" and error.status_code == 401, error.body
    fails(openai.PermissionDeniedError, lambda: create(client.with_options(api_key=VIEWER)))
    error = fails(openai.NotFoundError, lambda: create(model="nobody"))
    assert (error.code, error.param) == ("model_not_found", "model"), error.body
    fails(openai.NotFoundError, lambda: client.models.retrieve("nobody"))
    error = fails(openai.BadRequestError, lambda: create(n=2))
    assert (error.code, error.param, error.type) == ("unsupported_parameter", "n", "invalid_request_error"), error.body
    image = [{"type": "image_url", "image_url": {"url": "data:"}}]
    error = fails(openai.BadRequestError, lambda: create(messages=[{"role": "user", "content": image}]))
    assert error.param == "messages[0].content", error.body
    # With the retries that a client makes by itself: the server's side counts one call.
    error = fails(openai.InternalServerError, lambda: create(messages=user("fail")))
    assert error.status_code == 502 and "out of order" in error.message and error.request_id, error.body
    error = fails(openai.APIError, lambda: list(create(messages=user("cut"), stream=True)))
    assert error.code == "provider_failed" and error.body["partial"] == "Hel", error.body
    late = client.with_options(default_headers={"x-plimsoll-deadline-ms": "50"})
    error = fails(openai.InternalServerError, lambda: create(late, messages=user("hang")))
    assert (error.status_code, error.code) == (504, "deadline_exceeded"), error.body


def cancels(client):
    hang = dict(model="a", messages=user("hang"), extra_headers=session("cancelled"))
    stream = client.chat.completions.create(stream=True, **hang)
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    stream.close()
    free(client)
    fails(openai.APITimeoutError, lambda: client.with_options(max_retries=0, timeout=0.5).chat.completions.create(**hang))
    free(client)


def free(client):
    """The lane has room again: what comes next in the session is answered."""
    answer = client.chat.completions.create(model="a", messages=user("next"), extra_headers=session("cancelled"))
    assert answer.choices[0].message.content == "You said: next", answer


async def full(client):
    """One runs, one waits, and the third is refused; aborted, they leave nothing behind."""
    hang = dict(model="a", messages=user("hang"), extra_headers=session("full"))
    running = await client.chat.completions.create(stream=True, **hang)
    waiting = asyncio.create_task(client.chat.completions.create(**hang))
    impatient = client.with_options(max_retries=0)
    while True:
        try:
            third = asyncio.create_task(impatient.chat.completions.create(timeout=0.2, **hang))
            await third
        except openai.RateLimitError as error:
            assert error.code == "lane_full" and float(error.response.headers["retry-after-ms"]) >= 1, error.body
            break
        except openai.APITimeoutError:
            # It came before the one that waits, and left the lane again.
            continue
    waiting.cancel()
    await running.close()
    await asyncio.gather(waiting, return_exceptions=True)


async def crowd(client):
    async def talk(number):
        for message in range(3):
            text = f"message {message} of {number}"
            request = dict(model="b", messages=user(text), extra_headers=session(f"s{number}"))
            if number % 2:
                answer = await client.chat.completions.create(**request)
                said = answer.choices[0].message.content
            else:
                said = ""
                async for chunk in await client.chat.completions.create(stream=True, **request):
                    said += chunk.choices[0].delta.content or ""
            assert said == f"You said: {text}", said

    await asyncio.gather(*(talk(number) for number in range(SESSIONS)))


async def at_once():
    async with AsyncOpenAI(base_url=BASE, api_key=OPERATOR) as client:
        await full(client)
        await crowd(client)


with OpenAI(base_url=BASE, api_key=OPERATOR) as client:
    for part in (models, answers, streams, errors, cancels):
        part(client)
asyncio.run(at_once())
print(f"openai {openai.__version__}: all as it should be")
