//! Faults of the options that belong to a kind of autoencoder, or to some kinds of layers.

use crate::train::config::TrainingFile;
use crate::train::config::network::ModelKind;
use crate::train::layer_spec::Activation;
use crate::train::normalization::Normalization;

pub(super) fn kinds_fit(file: &TrainingFile, fault: &mut impl FnMut(&str, &str)) {
    let (kinds, spec) = (&file.head.kind, &file.network);
    if kinds.words().is_empty() {
        fault(
            "kind",
            "is missing; expected vanilla, deep, convolutional, sparse, denoising, variational, \
             contractive, or a list of them",
        );
    }
    if kinds.has(ModelKind::Vanilla) && !(spec.nodes.is_empty() && spec.channels.is_empty()) {
        fault(
            "kind",
            "a vanilla autoencoder has one hidden layer, its code; \
             with more layers it is deep or convolutional",
        );
    }
    if kinds.has(ModelKind::Deep) && spec.nodes.is_empty() {
        fault(
            "network.nodes",
            "is missing; a deep autoencoder has hidden layers before its code, such as [512, 128]",
        );
    }
    if kinds.has(ModelKind::Convolutional) && spec.channels.is_empty() {
        fault(
            "network.channels",
            "is missing; expected the channels of each convolution, such as [32, 64, 128]",
        );
    }
    if !kinds.has(ModelKind::Convolutional)
        && !spec.channels.is_empty()
        && !kinds.words().is_empty()
    {
        fault("kind", "network.channels is set; add \"convolutional\"");
    }
    if kinds.has(ModelKind::Denoising) && file.corruption.is_empty() {
        fault(
            "corruption",
            "is missing; a denoising autoencoder learns from corrupted input; add [[corruption]]",
        );
    }
    if !kinds.has(ModelKind::Denoising) && !file.corruption.is_empty() && !kinds.words().is_empty()
    {
        fault("kind", "[[corruption]] is set; add \"denoising\"");
    }
    if kinds.has(ModelKind::Sparse) && file.sparsity.is_none() {
        fault(
            "sparsity",
            "is missing; add [sparsity] with penalty = \"l1\" or \"kl\" and its weight",
        );
    }
    if !kinds.has(ModelKind::Sparse) && file.sparsity.is_some() && !kinds.words().is_empty() {
        fault("kind", "[sparsity] is set; add \"sparse\"");
    }
    if kinds.words().is_empty() {
        return;
    }
    variational_fits(file, fault);
    contractive_fits(file, fault);
}

fn variational_fits(file: &TrainingFile, fault: &mut impl FnMut(&str, &str)) {
    let head = &file.head;
    if !head.kind.has(ModelKind::Variational) {
        for (key, is_set) in [
            ("beta", head.beta.is_some()),
            ("beta_warmup", head.beta_warmup.is_some()),
        ] {
            if is_set {
                fault("kind", &format!("`{key}` is set; add \"variational\""));
            }
        }
        return;
    }
    if head
        .beta
        .is_some_and(|beta| !(beta >= 0.0 && beta.is_finite()))
    {
        fault("beta", "must be 0 or more, such as 1.0");
    }
    if head.code_size.is_none() {
        fault(
            "code_size",
            "is missing; the code of a variational autoencoder is a distribution",
        );
    }
    if file.sparsity.is_some() || head.kind.has(ModelKind::Contractive) {
        fault(
            "kind",
            "a variational autoencoder has the KL divergence as its penalty on the code; remove \
             \"variational\", or \"sparse\" and \"contractive\"",
        );
    }
    if !matches!(
        file.network.code_activation,
        None | Some(Activation::Linear)
    ) {
        fault(
            "network.code_activation",
            "the mean of a variational code is linear; remove the option",
        );
    }
}

fn contractive_fits(file: &TrainingFile, fault: &mut impl FnMut(&str, &str)) {
    let (head, spec) = (&file.head, &file.network);
    match (head.kind.has(ModelKind::Contractive), head.contraction) {
        (false, None) => return,
        (false, Some(_)) => return fault("kind", "`contraction` is set; add \"contractive\""),
        (true, None) => fault(
            "contraction",
            "is missing; expected the weight of the penalty on the derivatives of the code, such \
             as 0.1",
        ),
        (true, Some(weight)) if !(weight >= 0.0 && weight.is_finite()) => {
            fault("contraction", "must be 0 or more, such as 0.1");
        }
        (true, Some(_)) => {}
    }
    if !spec.channels.is_empty() {
        fault(
            "network.channels",
            "the penalty of a contractive autoencoder applies to dense layers; remove them, and set \
             network.nodes",
        );
    }
    if spec.normalization.is_some() {
        fault(
            "network.normalization",
            "the penalty of a contractive autoencoder applies to layers without normalization; \
             remove the option",
        );
    }
}

/// Checks the normalization and the tied weights.
pub(super) fn options_of_layers_fit(file: &TrainingFile, fault: &mut impl FnMut(&str, &str)) {
    let spec = &file.network;
    if spec.normalization.is_some() && spec.nodes.is_empty() && spec.channels.is_empty() {
        fault(
            "network.normalization",
            "has no effect without hidden layers; set network.nodes or network.channels",
        );
    }
    if spec.normalization == Some(Normalization::Batch) && file.training.batch_size == Some(1) {
        fault(
            "training.batch_size",
            "a batch normalization requires at least 2 records per step, of which it computes a \
             variance; raise it, or set network.normalization = \"layer\"",
        );
    }
    if !spec.tied {
        return;
    }
    if !spec.channels.is_empty() {
        fault(
            "network.tied",
            "applies to networks of dense layers; the kernels of convolutions and transposed \
             convolutions differ; remove the option, or network.channels",
        );
    }
    if file.head.kind.has(ModelKind::Variational) {
        fault(
            "network.tied",
            "the encoder of a variational autoencoder returns a mean and a variance, so that the \
             decoder is not its transpose; remove the option",
        );
    }
    let decoder = spec
        .decoder
        .as_ref()
        .and_then(|decoder| decoder.nodes.as_ref());
    if decoder.is_some_and(|nodes| !nodes.iter().eq(spec.nodes.iter().rev())) {
        fault(
            "network.decoder.nodes",
            "the decoder of a network with tied weights mirrors its encoder; remove the option",
        );
    }
}
