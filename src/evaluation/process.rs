//! What the operating system says about this process.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// This process, asked anew each time. Answers 0 on systems that cannot be asked.
pub(super) struct Process {
    system: System,
    pid: Option<Pid>,
}

impl Process {
    pub fn new() -> Self {
        Process {
            system: System::new(),
            pid: get_current_pid().ok(),
        }
    }

    fn ask(&mut self, what: ProcessRefreshKind) -> Option<&sysinfo::Process> {
        let pid = self.pid?;
        let one = ProcessesToUpdate::Some(&[pid]);
        (self.system).refresh_processes_specifics(one, false, what.without_tasks());
        self.system.process(pid)
    }

    /// Resident memory in MiB.
    pub fn memory_mib(&mut self) -> f64 {
        let process = self.ask(ProcessRefreshKind::nothing().with_memory());
        process.map_or(0.0, |process| process.memory() as f64 / (1 << 20) as f64)
    }

    /// Processor time used by all threads since the start, in seconds; Linux counts in hundredths.
    pub fn cpu_seconds(&mut self) -> f64 {
        let process = self.ask(ProcessRefreshKind::nothing().with_cpu());
        process.map_or(0.0, |process| {
            process.accumulated_cpu_time() as f64 / 1000.0
        })
    }
}
