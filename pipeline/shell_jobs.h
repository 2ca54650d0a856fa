#pragma once

#include <string>
#include <string_view>

#include "pipeline/command_keeper.h"
#include "pipeline/job_worker.h"

namespace fantail::pipeline {

/// Does jobs with their task's command, run by `sh -c`: `{}` in it is the job's line, quoted for the shell; the line is
/// on standard input, too; FANTAIL_JOB_ID, FANTAIL_ATTEMPT, FANTAIL_TASK and FANTAIL_METADATA are set (the last one up
/// to 64 KiB). What it prints is the result: as JSON where it is that, else as a string without the last end of line.
/// `keeper` must outlive it.
JobWorker::Execute shell_jobs(const CommandKeeper& keeper);

/// `text` as one word of sh.
std::string shell_quoted(std::string_view text);
/// `command` with each {} as the quoted `line`.
std::string with_line(std::string_view command, std::string_view line);

}  // namespace fantail::pipeline
