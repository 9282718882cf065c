//! The time profile of a run: utilization of the stages, waits, and the bottleneck.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::plan::stage::StageRole;
use crate::topology::{RunStats, StageStats};

/// Shares of the time from the start of the first worker to the end of the run.
#[derive(Debug, Serialize)]
pub(super) struct TimeProfile {
    seconds: f64,
    workers: usize,
    /// Share of the time in which no source had a batch ready.
    waited_for_sources: f64,
    /// Share of the time in which a batch was ready, but the maximum number of batches was in
    /// flight.
    waited_for_room: f64,
    /// Share of the time in which the workers were busy, averaged over the workers.
    workers_busy: f64,
    stages: Vec<StageProfile>,
    /// The sessions that all workers share.
    sessions: Vec<SessionProfile>,
}

#[derive(Debug, Serialize)]
struct SessionProfile {
    model: String,
    /// Share of the time in which the session was busy.
    busy: f64,
}

#[derive(Debug, Serialize)]
struct StageProfile {
    name: String,
    kind: &'static str,
    role: StageRole,
    /// Share of the time in which the stage was busy: averaged over the workers for a transform and
    /// for the encoding of a sink, of the sink's thread for its other work. For a source, the share
    /// of the time in which it was not blocked by backpressure.
    busy: f64,
}

impl TimeProfile {
    pub(super) fn from_stats(stats: &RunStats) -> Self {
        let seconds = stats.started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let share =
            |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Relaxed)).as_secs_f64() / seconds;
        let workers = stats.workers.len();
        let waited_for_room = share(&stats.backpressure_nanos);
        let profile = |stage: &StageStats, kind, role, busy| {
            let name = stage.name.to_string();
            StageProfile {
                name,
                kind,
                role,
                busy,
            }
        };
        let stages = stats.stages.iter().flat_map(|stage| {
            let busy = match stage.role {
                StageRole::Source => 1.0 - waited_for_room,
                StageRole::Transform => share(&stage.busy) / workers.max(1) as f64,
                StageRole::Sink => share(&stage.busy),
            };
            // Workers encode batches for some sinks; that is shown as a stage of its own.
            let prepared = share(&stage.prepared) / workers.max(1) as f64;
            let prepared = (prepared > 0.0)
                .then(|| profile(stage, "encoding", StageRole::Transform, prepared));
            prepared
                .into_iter()
                .chain([profile(stage, stage.kind, stage.role, busy)])
        });
        let sessions = stats.models().into_iter().filter_map(|model| {
            let busy = model.shared_seconds()? / seconds;
            Some(SessionProfile {
                model: model.name().to_owned(),
                busy,
            })
        });
        Self {
            seconds,
            workers,
            waited_for_sources: share(&stats.source_wait_nanos),
            waited_for_room,
            workers_busy: stats.workers.iter().map(share).sum::<f64>() / workers.max(1) as f64,
            stages: stages.collect(),
            sessions: sessions.collect(),
        }
    }

    fn busiest(&self, role: StageRole) -> Option<&StageProfile> {
        self.stages
            .iter()
            .filter(|stage| stage.role == role)
            .max_by(|a, b| a.busy.total_cmp(&b.busy))
    }

    /// Describes the bottleneck of the run and how to remove it.
    fn bottleneck(&self) -> String {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let sink = self
            .busiest(StageRole::Sink)
            .filter(|sink| sink.busy > 0.85);
        if let Some(session) = self.sessions.iter().find(|session| session.busy > 0.85) {
            return format!(
                "the shared session of model `{}`, busy {} of the time; a faster device, larger \
                 calls (more records per batch, more workers) or a smaller model would help",
                session.model,
                percent(session.busy)
            );
        }
        match (sink, self.busiest(StageRole::Transform)) {
            (Some(sink), _) => format!(
                "the sink `{}`, busy {} of the time; faster compression, fewer columns or a faster \
                 disk would help, but not more workers",
                sink.name,
                percent(sink.busy)
            ),
            (None, Some(stage)) if self.workers_busy > 0.85 => format!(
                "the workers, busy {} of the time, mostly in `{}` ({}); more cores or a cheaper \
                 stage would help",
                percent(self.workers_busy),
                stage.name,
                percent(stage.busy)
            ),
            _ if self.waited_for_sources > 0.5 => format!(
                "the sources, without a batch {} of the time, with the workers busy {} of the \
                 time; a faster disk or network or larger files would help, but not more workers",
                percent(self.waited_for_sources),
                percent(self.workers_busy)
            ),
            _ => "none found: the run is too short, or the time is spread over several stages"
                .to_owned(),
        }
    }
}

impl fmt::Display for TimeProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seconds,
            workers,
            waited_for_sources,
            waited_for_room,
            workers_busy,
            stages,
            sessions,
        } = self;
        writeln!(f, "\ntime profile of {seconds:.2} s, in percent")?;
        let width = stages
            .iter()
            .map(|stage| stage.name.len())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(
            f,
            "{:width$}  {:<10}  {:>6}  {:>9}  {:>10}",
            "", "", "", "waited", "waited"
        )?;
        writeln!(
            f,
            "{:width$}  {:<10}  {:>6}  {:>9}  {:>10}",
            "stage", "kind", "busy", "for input", "for output"
        )?;
        for StageProfile {
            name,
            kind,
            role,
            busy,
        } in stages
        {
            let percent = |share: f64| format!("{:.1}", 100.0 * share.max(0.0));
            let (input, output) = match *role {
                StageRole::Source => ("-".to_owned(), percent(*waited_for_room)),
                // A worker processes a batch through all transforms, so it waits between batches
                // and not between stages.
                StageRole::Transform => ("-".to_owned(), "-".to_owned()),
                StageRole::Sink => (percent(1.0 - busy), "-".to_owned()),
            };
            writeln!(
                f,
                "{name:width$}  {kind:<10}  {:>6}  {input:>9}  {output:>10}",
                percent(*busy)
            )?;
        }
        let (busy, idle) = (100.0 * workers_busy, 100.0 * (1.0 - workers_busy).max(0.0));
        writeln!(
            f,
            "{:width$}  {:<10}  {busy:>6.1}  {idle:>9.1}  {:>10}",
            "all transforms",
            format!("{workers} worker(s)"),
            "-"
        )?;
        for SessionProfile { model, busy: share } in sessions {
            writeln!(
                f,
                "the session of model `{model}` was busy {:.1} % of the time",
                100.0 * share
            )?;
        }
        writeln!(
            f,
            "no source had a batch ready for {:.1} % of the time",
            100.0 * waited_for_sources
        )?;
        writeln!(f, "bottleneck: {}", self.bottleneck())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(waited_for_sources: f64, workers_busy: f64, sink: f64, session: f64) -> TimeProfile {
        let stage = |name: &str, role, busy| StageProfile {
            name: name.to_owned(),
            kind: "test",
            role,
            busy,
        };
        TimeProfile {
            seconds: 10.0,
            workers: 2,
            waited_for_sources,
            waited_for_room: 0.1,
            workers_busy,
            stages: vec![
                stage("in", StageRole::Source, 0.9),
                stage("pixels", StageRole::Transform, 0.2 * workers_busy),
                stage("codes", StageRole::Transform, 0.8 * workers_busy),
                stage("out", StageRole::Sink, sink),
            ],
            sessions: vec![SessionProfile {
                model: "m".to_owned(),
                busy: session,
            }],
        }
    }

    #[test]
    fn bottleneck_is_the_busiest_part_of_the_run() {
        let bottleneck = |waited, busy, sink, session| -> String {
            let text = profile(waited, busy, sink, session).bottleneck();
            text.split(';').next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            bottleneck(0.0, 0.97, 0.1, 0.2),
            "the workers, busy 97 % of the time, mostly in `codes` (78 %)"
        );
        assert_eq!(
            bottleneck(0.9, 0.2, 0.1, 0.2),
            "the sources, without a batch 90 % of the time, with the workers busy 20 % of the time"
        );
        assert_eq!(
            bottleneck(0.1, 0.5, 0.95, 0.2),
            "the sink `out`, busy 95 % of the time"
        );
        assert_eq!(
            bottleneck(0.2, 0.5, 0.3, 0.2),
            "none found: the run is too short, or the time is spread over several stages"
        );
        assert_eq!(
            bottleneck(0.0, 0.97, 0.1, 0.9),
            "the shared session of model `m`, busy 90 % of the time"
        );
    }
}
