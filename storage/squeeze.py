"""Small bytes that are much alike from call to call, made smaller: headers and envelopes.

Invariant: what was squeezed with a dictionary is expanded with the same, so a dictionary that was
published is never edited. Squeezed bytes tell themselves by the mark of zstd, with which neither
JSON nor an envelope begins.
"""

from typing import Final

import zstandard

from storage.database import DatabaseCorrupt

MARK: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878 section 3.1.1
# Headers and an envelope are at most 256 KiB and 16 KiB; more is a damaged or hostile row.
MAX_BYTES: Final = 1024 * 1024

# As OpenAI, Azure and the clients of November 2026 write them; the more common come last, where a
# reference to them is shorter.
_ANSWERS: Final = b"""{
  "id": "resp_0",
  "object": "response",
  "created_at": 1760000000,
  "status": "completed",
  "background": false,
  "error": null,
  "incomplete_details": null,
  "instructions": null,
  "max_output_tokens": null,
  "model": "gpt-5-2025-08-07",
  "output": [],
  "parallel_tool_calls": true,
  "previous_response_id": null,
  "reasoning": {
    "effort": "medium",
    "summary": null
  },
  "service_tier": "default",
  "store": true,
  "temperature": 1.0,
  "text": {
    "format": {
      "type": "text"
    },
    "verbosity": "medium"
  },
  "tool_choice": "auto",
  "tools": [],
  "top_p": 1.0,
  "truncation": "disabled",
  "usage": {
    "input_tokens": 0,
    "input_tokens_details": {
      "cached_tokens": 0
    },
    "output_tokens": 0,
    "output_tokens_details": {
      "reasoning_tokens": 0
    },
    "total_tokens": 0
  },
  "user": null,
  "metadata": {}
}{"id":"chatcmpl-0","object":"chat.completion","created":1760000000,"model":"gpt-4o-2024-08-06",\
"choices":[{"index":0,"message":,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":\
0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":\
0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":\
0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_0"}{
  "id": "chatcmpl-0",
  "object": "chat.completion",
  "created": 1760000000,
  "model": "gpt-4o-mini-2024-07-18",
  "choices": [
    {
      "index": 0,
      "message": ,
      "logprobs": null,
      "finish_reason": "tool_calls"
    }
  ],
  "usage": {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "prompt_tokens_details": {
      "cached_tokens": 0,
      "audio_tokens": 0
    },
    "completion_tokens_details": {
      "reasoning_tokens": 0,
      "audio_tokens": 0,
      "accepted_prediction_tokens": 0,
      "rejected_prediction_tokens": 0
    }
  },
  "service_tier": "default",
  "system_fingerprint": "fp_0"
}
"""
_ASKED: Final = (
    b'{"messages":[],"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},'
    b'"temperature":0.7,"max_tokens":1024,"tool_choice":"auto","tools":[]}'
)
_HEADERS: Final = (
    b'[["date","Sun, 22 Nov 2026 12:00:00 GMT"],["content-type","text/event-stream; '
    b'charset=utf-8"],["transfer-encoding","chunked"],["connection","keep-alive"],'
    b'["access-control-expose-headers","X-Request-ID"],["openai-organization","user-"],'
    b'["openai-processing-ms","1000"],["openai-project","proj_"],["openai-version","2020-10-01"],'
    b'["x-envoy-upstream-service-time","1000"],["x-ratelimit-limit-requests","10000"],'
    b'["x-ratelimit-limit-tokens","30000000"],["x-ratelimit-remaining-requests","9999"],'
    b'["x-ratelimit-remaining-tokens","29999000"],["x-ratelimit-reset-requests","6ms"],'
    b'["x-ratelimit-reset-tokens","0s"],["x-request-id","req_"],["cf-cache-status","DYNAMIC"],'
    b'["set-cookie","[redacted]"],["strict-transport-security","max-age=31536000; '
    b'includeSubDomains; preload"],["x-content-type-options","nosniff"],["server","cloudflare"],'
    b'["cf-ray","-FRA"],["content-encoding","gzip"],["alt-svc","h3=\\":443\\"; ma=86400"]]'
    b'[["Content-Type","application/json"],["Content-Length","1000"],'
    b'[["host","127.0.0.1:3000"],["connection","keep-alive"],["accept","application/json"],'
    b'["content-type","application/json"],["user-agent","OpenAI/JS 6.0.0"],'
    b'["x-stainless-retry-count","0"],["x-stainless-lang","js"],'
    b'["x-stainless-package-version","6.0.0"],["x-stainless-os","MacOS"],'
    b'["x-stainless-arch","arm64"],["x-stainless-runtime","node"],'
    b'["x-stainless-runtime-version","v22.0.0"],["authorization","[redacted]"],'
    b'["accept-language","*"],["sec-fetch-mode","cors"],["accept-encoding","gzip, deflate"],'
    b'["content-length","1000"]]'
    b'[["Host","127.0.0.1:3000"],["Accept-Encoding","gzip, deflate, br, zstd"],'
    b'["Connection","keep-alive"],["Accept","application/json"],'
    b'["Content-Type","application/json"],["User-Agent","AsyncOpenAI/Python 3.54.0"],'
    b'["X-Stainless-Lang","python"],["X-Stainless-Package-Version","3.54.0"],'
    b'["X-Stainless-OS","Linux"],["X-Stainless-Arch","x64"],["X-Stainless-Runtime","CPython"],'
    b'["X-Stainless-Runtime-Version","3.12.0"],["X-Stainless-Async","async:asyncio"],'
    b'["X-Stainless-Retry-Count","0"],["X-Stainless-Read-Timeout","600"],'
    b'["Authorization","[redacted]"],["X-Traceway-Session-Id",""],["Content-Length","1000"]]'
)
_DICTIONARY: Final = zstandard.ZstdCompressionDict(
    _ANSWERS + _ASKED + _HEADERS, dict_type=zstandard.DICT_TYPE_RAWCONTENT
)
_DICTIONARY.precompute_compress(level=1)

# Only the writer's thread may use it.
_compressor = zstandard.ZstdCompressor(level=1, dict_data=_DICTIONARY)


def squeeze(data: bytes) -> bytes:
    """Make bytes smaller where they can be. Only for the writer's thread."""
    squeezed = _compressor.compress(data)
    return squeezed if len(squeezed) < len(data) or data.startswith(MARK) else data


def expand(data: bytes) -> bytes:
    """Give bytes as they were before ``squeeze``.

    Raises DatabaseCorrupt where they do not expand.
    """
    if not data.startswith(MARK):
        return data
    expanded_size(data)
    try:
        return zstandard.ZstdDecompressor(dict_data=_DICTIONARY).decompress(data)
    except zstandard.ZstdError as error:
        raise _damaged(error) from error


def expanded_size(data: bytes) -> int:
    """Tell how many bytes ``expand`` gives, by the frame's header alone.

    Raises DatabaseCorrupt where that says none, or more than were ever stored.
    """
    if not data.startswith(MARK):
        return len(data)
    try:
        size = zstandard.frame_content_size(data)
    except zstandard.ZstdError as error:
        raise _damaged(error) from error
    if size < 0:
        raise _damaged("its frame says no size")
    if size > MAX_BYTES:
        raise DatabaseCorrupt("spans", "a squeezed value is larger than any that was stored")
    return size


def _damaged(why: object) -> DatabaseCorrupt:
    return DatabaseCorrupt("spans", f"a squeezed value does not expand ({why})")
