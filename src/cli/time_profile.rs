//! Where the time of a run went: who was at work, who waited for whom, and, in words, what held it
//! up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::topology::{RunStats, StageStats};

/// Shares of the time between the start of the first worker and the end.
#[derive(Debug, Serialize)]
pub(super) struct TimeProfile {
    seconds: f64,
    workers: usize,
    /// Share of the time in which no source had a batch ready.
    waited_for_sources: f64,
    /// Share of the time in which a batch was ready, but as many as may be were on their way.
    waited_for_room: f64,
    /// Share of the workers' time in which they were at work.
    workers_busy: f64,
    stages: Vec<StageProfile>,
    /// Sessions that all workers share.
    sessions: Vec<SessionProfile>,
}

#[derive(Debug, Serialize)]
struct SessionProfile {
    model: String,
    /// Share of the time.
    busy: f64,
}

#[derive(Debug, Serialize)]
struct StageProfile {
    name: String,
    kind: &'static str,
    role: &'static str,
    /// Share of the time of those who do its work: all workers for a transform and for what a sink
    /// leaves to them, its own thread for a sink. A source's is the time in which it was not made
    /// to wait.
    busy: f64,
}

impl TimeProfile {
    pub(super) fn of(stats: &RunStats) -> Self {
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
                "source" => 1.0 - waited_for_room,
                "transform" => share(&stage.busy) / workers.max(1) as f64,
                _ => share(&stage.busy),
            };
            // What workers do for a sink is one more thing that they do.
            let prepared = share(&stage.prepared) / workers.max(1) as f64;
            let prepared =
                (prepared > 0.0).then(|| profile(stage, "encoding", "transform", prepared));
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

    fn busiest(&self, role: &str) -> Option<&StageProfile> {
        self.stages
            .iter()
            .filter(|stage| stage.role == role)
            .max_by(|a, b| a.busy.total_cmp(&b.busy))
    }

    /// What held the run up, and what would help.
    fn bottleneck(&self) -> String {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let sink = self.busiest("sink").filter(|sink| sink.busy > 0.85);
        if let Some(session) = self.sessions.iter().find(|session| session.busy > 0.85) {
            return format!(
                "the session of model `{}`, which all workers share: it was at work {} of the time. A faster device, larger \
                 calls (more records in a batch, more workers) or a smaller model would help",
                session.model,
                percent(session.busy)
            );
        }
        match (sink, self.busiest("transform")) {
            (Some(sink), _) => format!(
                "the sink `{}`: its thread was at work {} of the time. Cheaper compression, fewer columns or a faster \
                 disk would help; more workers would not",
                sink.name,
                percent(sink.busy)
            ),
            (None, Some(stage)) if self.workers_busy > 0.85 => format!(
                "the workers: they were at work {} of the time, in `{}` most of all ({}). More cores, or less to do in \
                 that stage, would help",
                percent(self.workers_busy),
                stage.name,
                percent(stage.busy)
            ),
            _ if self.waited_for_sources > 0.5 => format!(
                "the sources: {} of the time none had a batch ready, and the workers were at work {} of it. A faster \
                 disk or network, or larger files, would help; more workers would not",
                percent(self.waited_for_sources),
                percent(self.workers_busy)
            ),
            _ => "nothing stands out: the run is too short to tell, or its parts take turns"
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
        writeln!(f, "\nwhere the {seconds:.2} s went, in percent")?;
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
                "source" => ("-".to_owned(), percent(*waited_for_room)),
                // Workers carry a batch through all transforms: they wait between batches, not
                // between stages.
                "transform" => ("-".to_owned(), "-".to_owned()),
                _ => (percent(1.0 - busy), "-".to_owned()),
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
        for SessionProfile { model, busy } in sessions {
            writeln!(
                f,
                "the session of model `{model}` was at work {:.1} % of the time",
                100.0 * busy
            )?;
        }
        writeln!(
            f,
            "for {:.1} % of the time no source had a batch ready",
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
                stage("in", "source", 0.9),
                stage("pixels", "transform", 0.2 * workers_busy),
                stage("codes", "transform", 0.8 * workers_busy),
                stage("out", "sink", sink),
            ],
            sessions: vec![SessionProfile {
                model: "m".to_owned(),
                busy: session,
            }],
        }
    }

    #[test]
    fn the_bottleneck_is_named() {
        let named = |waited, busy, sink| profile(waited, busy, sink, 0.2).bottleneck();
        assert!(
            named(0.0, 0.97, 0.1)
                .starts_with("the workers: they were at work 97 % of the time, in `codes`")
        );
        assert!(named(0.9, 0.2, 0.1).starts_with("the sources: 90 % of the time"));
        assert!(named(0.1, 0.5, 0.95).starts_with("the sink `out`"));
        assert!(named(0.2, 0.5, 0.3).starts_with("nothing stands out"));
        assert!(
            profile(0.0, 0.97, 0.1, 0.9)
                .bottleneck()
                .starts_with("the session of model `m`, which all workers share")
        );
    }
}
