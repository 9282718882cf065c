.PHONY: runtime

# ONNX Runtime, into .runtime/onnxruntime: by pip, pinned by hash.
runtime:
	@deploy/fetch-onnxruntime.sh
