#!/usr/bin/env python3
"""Tests of linked_crates.py on this checkout: scripts/test_linked_crates.py"""

import re
import unittest
from pathlib import Path

import linked_crates

ROOT = Path(__file__).resolve().parent.parent


class LinkedCrates(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sbom = linked_crates.sbom("latentflow", "object-store", with_onnx_runtime=True)
        cls.names = [component["name"] for component in cls.sbom["components"]]

    def test_linked_crates_are_listed(self):
        for name in ("arrow", "axum", "object_store", "ort", "parquet", "rayon", "ring", "zstd-sys"):
            self.assertIn(name, self.names)

    def test_what_is_not_linked_is_not_listed(self):
        # A build dependency, a procedural macro, a test dependency, crates of other platforms, and one of a feature that is off.
        for name in ("cc", "serde_derive", "proptest", "windows-sys", "kqueue", "turbojpeg", "pyo3"):
            self.assertNotIn(name, self.names)

    def test_native_module_has_python_bindings_but_no_library_of_onnx_runtime(self):
        sbom = linked_crates.sbom("latentflow-python", "object-store", with_onnx_runtime=False)
        names = [component["name"] for component in sbom["components"]]
        self.assertIn("pyo3", names)
        self.assertIn("latentflow", names)
        self.assertNotIn("onnxruntime", names)

    def test_every_crate_of_the_registry_has_a_checksum_and_a_license(self):
        for component in self.sbom["components"]:
            self.assertTrue(component["licenses"][0]["expression"], component["name"])
            self.assertNotIn("/", component["licenses"][0]["expression"])
        for component in self.of_the_registry():
            self.assertRegex(component["hashes"][0]["content"], "^[0-9a-f]{64}$")

    def test_crates_of_the_workspace_are_listed_without_a_checksum(self):
        registry = [component["name"] for component in self.of_the_registry()]
        own = {c["name"]: c for c in self.sbom["components"] if c["name"] not in registry and c["name"] != "onnxruntime"}
        self.assertIn("scaled-jpeg", own)
        for component in own.values():
            self.assertNotIn("hashes", component)

    def test_dependencies_name_components_and_reach_all_of_them(self):
        depends = {entry["ref"]: entry["dependsOn"] for entry in self.sbom["dependencies"]}
        root = self.sbom["metadata"]["component"]["bom-ref"]
        refs = {component["bom-ref"] for component in self.sbom["components"]}
        self.assertEqual(len(refs), len(self.names))
        self.assertEqual(set(depends), refs | {root})
        reached, open_refs = set(), [root]
        while open_refs:
            ref = open_refs.pop()
            if ref not in reached:
                reached.add(ref)
                open_refs += depends[ref]
        self.assertEqual(reached, refs | {root})
        self.assertIn("pkg:cargo/arrow-array@" + self.version("arrow-array"), depends["pkg:cargo/arrow@" + self.version("arrow")])

    def of_the_registry(self):
        sources = {crate: package["source"] for crate, package in linked_crates.metadata().items()}
        found = [c for c in self.sbom["components"] if sources.get((c["name"], c["version"])) is not None]
        self.assertGreater(len(found), 100)
        return found

    def version(self, name):
        return next(component["version"] for component in self.sbom["components"] if component["name"] == name)

    def test_library_of_onnx_runtime_has_the_pinned_version(self):
        pin = re.search(r"^onnxruntime==(\S+)", (ROOT / "runtime-requirements.txt").read_text(), re.MULTILINE)
        self.assertEqual(self.version("onnxruntime"), pin[1])

    def test_output_is_the_same_each_time_and_names_no_folder(self):
        again = linked_crates.sbom("latentflow", "object-store", with_onnx_runtime=True)
        self.assertEqual(again, self.sbom)
        self.assertNotIn(str(ROOT), str(again))

    def test_every_linked_crate_of_the_registry_has_its_license(self):
        text = linked_crates.license_texts("latentflow", "object-store")
        listed = text.split("-" * 80)[0]
        for component in self.of_the_registry():
            self.assertIn(f"\n{component['name']} {component['version']}: ", listed)
        self.assertIn("Permission is hereby granted, free of charge", text)


if __name__ == "__main__":
    unittest.main()
