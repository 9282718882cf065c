//! Stable codes of errors, with their causes and remedies.

use std::fmt;

/// Declares the codes. Each has a text, a cause, and a remedy.
macro_rules! error_codes {
    ($($variant:ident $text:literal: $cause:literal, $remedy:literal;)*) => {
        /// The stable code of an error. Programs and alerts match on it, since the text of a message
        /// may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = $cause] $variant,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as text, such as `output_locked`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The cause, as a sentence.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self {
                    $(Self::$variant => $cause,)*
                }
            }

            /// The remedy, as a sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)*
                }
            }
        }
    };
}

error_codes! {
    // Refusals: nothing was started, and the user has to change the pipeline or the output.
    PipelineInvalid "pipeline_invalid":
        "The pipeline file, a training file, a model card or an argument has faults.",
        "Correct each fault at the line that the message names; `latentflow check` lists all of them.";
    ArgumentInvalid "argument_invalid":
        "An argument of the command, or the file or folder that it names, cannot be used.",
        "Correct the argument as the message describes.";
    OutputChanged "output_changed":
        "The output holds rows of a pipeline with other options, models or stages.",
        "Use another path, delete the rows with `latentflow reset`, or allow both with `--allow-change`.";
    OutputColumns "output_columns":
        "Readers cannot unify the columns of the records with those of the files in the output.",
        "Write to another folder, or convert the columns to the types of the dataset.";
    OutputShards "output_shards":
        "The output holds rows of another number of shards, or of a run without shards.",
        "Use the same number of shards, use another path, or delete the output.";
    InputChanged "input_changed":
        "A file has changed since an earlier run read it, and `on_change = \"refuse\"` is set.",
        "Restore the file, or write `on_change = \"new\"` to read it as a new file.";
    InputNotSupplied "input_not_supplied":
        "The pipeline reads the records of an embedding program, and was run without one.",
        "Run the pipeline from that program, such as the Python package, or use another source.";

    // Inputs.
    InputNotFound "input_not_found":
        "The input does not exist, or it has no file that the source reads.",
        "Correct the path or the pattern; the message counts the files that were scanned.";
    InputUnmounted "input_unmounted":
        "The folder of the input is not the one that earlier runs read, such as an empty mount point.",
        "Mount the disk, or accept the present folder as the message describes.";
    InputUnreadable "input_unreadable":
        "Some inputs could not be read for reasons of the environment; all others were read.",
        "Correct permissions or the device, then run again: only the unread inputs are read.";
    InputInvalid "input_invalid":
        "The input as a whole is not what the source reads, or its columns differ from the plan.",
        "Correct the input, or use the kind of source that reads it.";
    InputEmpty "input_empty":
        "The input has no record that can be used.",
        "Read the reasons of the rejects in the message, and correct the input or the selection.";

    // Outputs.
    OutputLocked "output_locked":
        "Another run, compaction or purge writes to the same output.",
        "Wait until it ends, or use another path.";
    OutputFenced "output_fenced":
        "Another run has claimed the output in a bucket; this run does not commit any more.",
        "Let one run per output run; the other run processes the uncommitted rows.";
    OutputReplaced "output_replaced":
        "The folder of the output was replaced, or its disk was mounted or unmounted.",
        "Mount the disk and run again, or start over in the present folder with `--start-over`.";
    OutputForeign "output_foreign":
        "The output holds files that latentflow did not write, or does not recognize as its own.",
        "Use a separate folder for the output, or move the files away.";
    OutputExhausted "output_exhausted":
        "All numbers or names of files in the output are used.",
        "Use another path.";
    OutputUnwritable "output_unwritable":
        "Records cannot be stored as the sink requires.",
        "Reduce the batch, or change the columns as the message describes.";
    OutputClosed "output_closed":
        "The reader of standard output has closed it.",
        "None; programs such as `head` do so.";
    StoreUnreachable "store_unreachable":
        "The object store does not respond.",
        "Check the network, the endpoint and the proxy, then run again; committed records are kept.";
    StoreUnsupported "store_unsupported":
        "The object store does not support exclusive creation, on which exactly-once depends.",
        "Write to a local folder and copy it, or use another store.";

    // Files that the program keeps.
    StateRequired "state_required":
        "The source keeps a journal, and the pipeline has no folder on a local disk for it.",
        "Write `state = \"some/folder\"` at the top of the pipeline.";
    StateCorrupt "state_corrupt":
        "A file that latentflow wrote, such as a journal, a footer or a checkpoint, is damaged.",
        "Restore the file, or proceed as the message describes.";
    DatasetCorrupt "dataset_corrupt":
        "A data file of a dataset cannot be read, or changed while it was read.",
        "Restore or remove the file; no file was replaced.";
    DataCorrupt "data_corrupt":
        "The prepared data of a training or an evaluation is damaged.",
        "Delete the folder of the prepared data; the next call prepares it again.";

    // The environment.
    Io "io":
        "The operating system or the object store returned an error.",
        "Read the error and the path in the message.";
    DiskFull "disk_full":
        "The disk is full, or a quota or a limit on the size of files is exceeded.",
        "Free disk space or write to another path, then run again; committed records are kept.";
    NotFound "not_found":
        "A file or folder does not exist any more.",
        "Restore the path, then run again.";
    PermissionDenied "permission_denied":
        "The user that latentflow runs as may not access the path or the object.",
        "Grant access, or use another path.";
    TooManyFiles "too_many_files":
        "The process has too many open files.",
        "Raise the limit on open files (`ulimit -n`), then run again.";
    MemoryExhausted "memory_exhausted":
        "Memory could not be allocated.",
        "Reduce `batch` or `limits.memory`, or free memory.";
    CredentialsMissing "credentials_missing":
        "A token, certificate or key is missing or invalid.",
        "Set the environment variable or correct the file that the message names.";
    ListenFailed "listen_failed":
        "The address of a listener is in use or not available.",
        "Use another address, or port 0 for any free port.";
    ThreadFailed "thread_failed":
        "The operating system did not start a thread.",
        "Raise the limit on processes and threads (`ulimit -u`, or `pids.max` of the container).";

    // Models and training.
    Model "model":
        "A model cannot be loaded or run.",
        "Read the reason of ONNX Runtime in the message; `latentflow inspect MODEL` shows its inputs and outputs.";
    ModelExists "model_exists":
        "The output folder of a training has a model.",
        "Pass `--restart` to train it from scratch, or `--out` to write to another folder.";
    TrainingChanged "training_changed":
        "The training file or its data has changed since the training began.",
        "Pass `--restart` to start from scratch.";
    Training "training":
        "A training or an evaluation cannot proceed.",
        "Change the option that the message names.";
    Stopped "stopped":
        "The command was stopped on request before its end.",
        "Run it again; a training and a run resume.";

    // Defects.
    Arrow "arrow":
        "Arrow failed on an operation that the plan had checked.",
        "Report the message, with the pipeline and an example of the data.";
    Parquet "parquet":
        "A Parquet file could not be read or written.",
        "Check the file with another reader; report the message if that reads it.";
    Internal "internal":
        "latentflow met a state that it does not expect, such as a panic of a thread.",
        "Report the message, with the pipeline and an example of the data.";
}

impl ErrorCode {
    /// Whether the error is a refusal: nothing was started, and the user has to change the pipeline,
    /// the inputs or the output. The exit code is then 2.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::PipelineInvalid
                | Self::OutputChanged
                | Self::OutputColumns
                | Self::OutputShards
                | Self::InputChanged
                | Self::InputNotSupplied
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
