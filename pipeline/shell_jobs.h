#pragma once

#include <string>
#include <string_view>

#include "pipeline/command_keeper.h"
#include "pipeline/job_worker.h"

namespace fantail::pipeline {

/// Does jobs with their task's command, run by `sh -c`: `{}` in it is the job's line, quoted for the shell; the line is
/// on standard input, too; FANTAIL_JOB_ID, FANTAIL_ATTEMPT, FANTAIL_TASK and FANTAIL_METADATA are set (the last one up
/// to 64 KiB). What it prints is the result: one line that is a JSON object, array, number, true, false or null stands
/// as it is; anything else is a text without its last end of line, {"base64": text} where it is no UTF-8. `keeper` must
/// outlive it.
JobWorker::Execute shell_jobs(const CommandKeeper& keeper);

/// `text` as one word of sh.
std::string shell_quoted(std::string_view text);
/// `command` with each {} as the quoted `line`.
std::string with_line(std::string_view command, std::string_view line);

}  // namespace fantail::pipeline
