"""The official client of the OpenAI interface against a server: chat, streams, logprobs, embeddings, errors, cancellation.

Arguments: the base URL, the names of the models that generate and make embeddings, and whether the latter is `real`.
The server wants the key `secret`.
"""

import json
import re
import sys
import urllib.request

import openai

BASE, MODEL, EMBEDDING_MODEL, IS_REAL = *sys.argv[1:4], sys.argv[4] == "real"
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="secret", max_retries=0)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def metric(name):
    request = urllib.request.Request(f"{BASE}/metrics", headers={"authorization": "Bearer secret"})
    text = urllib.request.urlopen(request).read().decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"jackfield:{name}{{"))


def models():
    listed = client.models.list()
    assert [model.id for model in listed.data] == [MODEL, EMBEDDING_MODEL], listed
    assert client.models.retrieve(MODEL).id == MODEL


def chat():
    params = dict(model=MODEL, messages=QUESTION, max_completion_tokens=24, seed=3, temperature=0.7)
    answer = client.chat.completions.create(**params)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    pieces, usages = [], []
    for chunk in client.chat.completions.create(**params, stream=True, stream_options={"include_usage": True}):
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usages += [chunk.usage] if chunk.usage else []
    assert "".join(pieces) == choice.message.content, (pieces, choice.message.content)
    assert [u.total_tokens for u in usages] == [usage.total_tokens]
    assert usages[0].prompt_tokens_details.cached_tokens > 0, "the prompt was asked before"
    with client.chat.completions.stream(**params) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == choice.message.content
    return choice.message.content


def completions():
    params = dict(model=MODEL, prompt=["One, two,", "Red, green,"], n=2, max_tokens=8, seed=5, echo=True)
    answer = client.completions.create(**params)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[2].text.startswith("Red, green,")
    texts = [""] * 4
    for chunk in client.completions.create(**params, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in answer.choices]
    stopped = client.completions.create(model=MODEL, prompt="One, two,", max_tokens=40, seed=5, stop=[" ", "e"])
    assert " " not in stopped.choices[0].text and "e" not in stopped.choices[0].text
    forced = client.completions.create(
        model=MODEL, prompt="One", max_tokens=3, logit_bias={"9": 100}, temperature=0, logprobs=0
    )
    tokens = forced.choices[0].logprobs.tokens
    assert len(set(tokens)) == 1 and len(tokens) == 3, tokens
    # Bias that an outgrown penalty takes back: 100 - 2 for each time the token was there already.
    varied = dict(prompt="One", max_tokens=4, logit_bias={"9": 100, "10": 99}, temperature=0, logprobs=0)
    answer = client.completions.create(model=MODEL, **varied, frequency_penalty=2, presence_penalty=2)
    assert answer.choices[0].logprobs.tokens[:2] != tokens[:2], answer


def logprobs():
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_completion_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in content).decode(errors="replace") == answer.choices[0].message.content
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token
        assert [top.logprob for top in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)


def structured():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 30}, "people": {"type": "integer", "minimum": 0, "maximum": 10**8}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    named = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    params = dict(model=MODEL, messages=QUESTION, max_completion_tokens=100)
    for seed in range(6):
        answer = client.chat.completions.create(**params, seed=seed, temperature=1.0, response_format=named)
        assert answer.choices[0].finish_reason == "stop", answer
        found = json.loads(answer.choices[0].message.content)
        assert list(found) == ["city", "people"] and type(found["people"]) is int and len(found["city"]) <= 30, found
    chosen = client.completions.create(
        model=MODEL, prompt="The sky is", max_tokens=10, extra_body={"guided_choice": ["blue", "green"]}
    )
    assert chosen.choices[0].text in ("blue", "green"), chosen
    matched = client.completions.create(
        model=MODEL, prompt="It is", max_tokens=10, extra_body={"structured_outputs": {"regex": "[0-2][0-9]:[0-5][0-9]"}}
    )
    assert re.fullmatch("[0-2][0-9]:[0-5][0-9]", matched.choices[0].text), matched


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/name"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
            "$defs": {"name": {"type": "string", "maxLength": 20}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}}


def gathered(stream):
    # What a stream comes to: content, calls, and why it ended.
    content, calls, reasons = "", [], []
    for chunk in stream:
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                if call.index == len(calls):
                    assert call.id and call.type == "function", call
                    calls.append([call.function.name, ""])
                calls[call.index][1] += call.function.arguments or ""
    return content, calls, reasons


def tools():
    ask = client.chat.completions.create
    question = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]
    params = dict(model=MODEL, messages=question, tools=[WEATHER, CLOCK], max_completion_tokens=120, seed=1, temperature=0.8)
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice, reason in ((named, "stop"), ("required", "tool_calls")):
        answer = ask(**params, tool_choice=choice).choices[0]
        assert answer.finish_reason == reason and answer.message.content is None, answer
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        if call.function.name == "get_weather":
            assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("celsius", "fahrenheit"), arguments
        else:
            assert call.function.name == "get_time" and arguments == {} and choice == "required"
        streamed = gathered(ask(**params, tool_choice=choice, stream=True))
        assert streamed == ("", [[call.function.name, call.function.arguments]], [reason]), (streamed, answer)
    # What the model likes: whether or not it calls, a stream comes to the same.
    for seed in range(3):
        params["seed"] = seed
        answer = ask(**params).choices[0]
        calls = [[call.function.name, call.function.arguments] for call in answer.message.tool_calls or []]
        assert gathered(ask(**params, stream=True)) == (answer.message.content or "", calls, [answer.finish_reason])
    # An answer that is known: a grammar allows nothing else.
    text = 'I look.\n<tool_call>{"name": "get_time", "arguments": {}}</tool_call>\n<tool_call>{"name": "get_time"}</tool_call>'
    forced = dict(params, extra_body={"guided_choice": [text]})
    answer = ask(**forced).choices[0]
    assert answer.message.content == "I look." and answer.finish_reason == "tool_calls", answer
    assert [call.function.name for call in answer.message.tool_calls] == ["get_time"] * 2
    assert gathered(ask(**forced, stream=True)) == ("I look.", [["get_time", "{}"]] * 2, ["tool_calls"])
    assert len(ask(**forced, parallel_tool_calls=False).choices[0].message.tool_calls) == 1
    plain = ask(**forced, tool_choice="none").choices[0]
    assert plain.message.content == text and not plain.message.tool_calls and plain.finish_reason == "stop"
    # The way back: the call and its result are in the conversation.
    call = answer.message.tool_calls[0]
    messages = question + [
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "12:00"},
    ]
    assert ask(**dict(params, messages=messages)).choices[0].message.role == "assistant"
    thought = ask(model=MODEL, messages=question, extra_body={"guided_choice": ["<think>\nhm\n</think>\n\nSunny."]})
    message = thought.choices[0].message
    assert message.content == "Sunny." and message.model_extra["reasoning_content"] == "hm", message


def embeddings():
    texts = ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
    ask = client.embeddings.create
    answer = ask(model=EMBEDDING_MODEL, input=texts)  # the client asks for Base64 and decodes it
    vectors = [entry.embedding for entry in answer.data]
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    plain = ask(model=EMBEDDING_MODEL, input=texts, encoding_format="float")
    for vector, entry in zip(vectors, plain.data):
        assert len(vector) == len(entry.embedding)
        assert all(abs(a - b) < 1e-7 for a, b in zip(vector, entry.embedding))
        assert abs(sum(x * x for x in vector) - 1) < 1e-5
    alone = ask(model=EMBEDDING_MODEL, input=texts[1], dimensions=len(vectors[1]))
    assert alone.data[0].embedding == vectors[1]
    dot = lambda i, j: sum(a * b for a, b in zip(vectors[i], vectors[j]))
    if IS_REAL:
        # As the card of the model has it: 0.943 and 0.257.
        assert abs(dot(0, 1) - 0.943) < 0.001 and abs(dot(0, 2) - 0.257) < 0.001, (dot(0, 1), dot(0, 2))


def errors():
    def refused(kind, code, param, call):
        try:
            call()
        except kind as error:
            assert (error.code, error.param) == (code, param), error
            assert error.request_id, "errors have names"
        else:
            raise AssertionError(f"expected {kind}")

    ask = client.chat.completions.create
    refused(openai.NotFoundError, "model_not_found", "model", lambda: ask(model="gpt-5", messages=QUESTION))
    refused(
        openai.BadRequestError, "invalid_value", "temperature", lambda: ask(model=MODEL, messages=QUESTION, temperature=3)
    )
    tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "strange"}}}]
    refused(
        openai.BadRequestError,
        "invalid_value",
        "tools",
        lambda: ask(model=MODEL, messages=QUESTION, tools=tools, tool_choice="required"),
    )
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array", "uniqueItems": True}}}
    refused(
        openai.BadRequestError,
        "invalid_value",
        "response_format.json_schema.schema",
        lambda: ask(model=MODEL, messages=QUESTION, response_format=schema),
    )
    refused(
        openai.BadRequestError,
        "context_length_exceeded",
        "messages",
        lambda: ask(model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}]),
    )
    stranger = openai.OpenAI(base_url=f"{BASE}/v1", api_key="guess", max_retries=0)
    refused(openai.AuthenticationError, "invalid_api_key", None, lambda: stranger.models.list())
    embed = client.embeddings.create
    refused(openai.NotFoundError, "model_not_found", "model", lambda: embed(model=MODEL, input="a"))
    refused(openai.BadRequestError, "invalid_value", "input[1]", lambda: embed(model=EMBEDDING_MODEL, input=["a", ""]))


def cancellation():
    before = metric("request_cancelled_total")
    stream = client.completions.create(
        model=MODEL, prompt="Count:", max_tokens=100_000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    while metric("request_cancelled_total") == before or metric("num_requests_running") > 0:
        pass


for part in (models, chat, completions, logprobs, structured, tools, embeddings, errors, cancellation):
    part()
    print(part.__name__, "as expected", flush=True)
