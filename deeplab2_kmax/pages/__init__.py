"""HTML pages that need nothing but themselves: styles, scripts and pictures are inside, and nothing is fetched.

`rendering` fills a template of `templates/`, all of which extend `base.html.j2`; it has the style, the sorting of
tables and a policy that forbids requests. `pictures` turns pixels into `data:` URLs, `charts` values into places on a
chart.

What a page says is decided by its caller, such as `deeplab2_kmax.dataset_check` or `deeplab2_kmax.results`.
"""
