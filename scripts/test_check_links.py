#!/usr/bin/env python3
"""Tests of check_links.py."""

import pathlib
import tempfile
import unittest

import check_links

PAGES = {
    "README.md": "# A `b` (c)\n\n[yes](docs/a.md#one-two), [twice](docs/a.md#same-1), [here](#a-b-c), [out](https://example.com/#x), `[no](code.md)`\n"
    "\n```sh\n[no](fenced.md)\n```\n\n[broken](docs/b.md) and\n[no heading](docs/a.md#three)\n[above](../x.md)\n",
    "docs/a.md": '# One, two!\n\n## Same\n\n## Same\n\n<a id="own"></a>\n[own](#own) [folder](../docs) [root](/README.md)\n\n[ref]: ../README.md#nothing\n',
    "target/c.md": "[broken](d.md)\n",
}


class Test(unittest.TestCase):
    def test_each_broken_link_is_reported_with_its_line(self):
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name).resolve()
            for page, text in PAGES.items():
                (root / page).parent.mkdir(exist_ok=True)
                (root / page).write_text(text, encoding="utf-8")
            faults, links = check_links.check(root)
        self.assertEqual(
            [
                "README.md:9: docs/b.md: no such file",
                "README.md:10: docs/a.md#three: docs/a.md has no heading `#three`",
                "README.md:11: ../x.md: leaves the repository",
                "docs/a.md:8: /README.md: an absolute path; write a path relative to the file",
                "docs/a.md:10: ../README.md#nothing: README.md has no heading `#nothing`",
            ],
            faults,
        )
        self.assertEqual(11, links)

    def test_anchors_are_those_of_github(self):
        cases = {
            "Anomaly scores and per-feature errors": "anomaly-scores-and-per-feature-errors",
            "Kubernetes, Slurm, SSH": "kubernetes-slurm-ssh",
            "The `images` sink": "the-images-sink",
            "0.1.0 (unreleased)": "010-unreleased",
            "What is `a_b`?": "what-is-a_b",
            "[Link](x.md) here": "link-here",
        }
        self.assertEqual(list(cases.values()), [check_links.anchor(title) for title in cases])


if __name__ == "__main__":
    unittest.main()
