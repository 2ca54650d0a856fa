#include "pipeline/job_protocol.h"

#include <cstdio>

#include "common/base/text.h"
#include "common/json/json.h"

namespace fantail::pipeline {
namespace {

std::string id_json(JobId job) {
  std::string out = "[";
  out += std::to_string(job.task);
  out += ',';
  out += std::to_string(job.number);
  return out;  // the caller closes it
}

JobId job_of(const Json& value) { return {value.at(0).get<std::uint32_t>(), value.at(1).get<std::uint64_t>()}; }

std::string decimal(double value, int digits) {
  char text[64];
  const int n = std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::string(text, static_cast<std::size_t>(n));
}

/// Any bytes: a string where they are UTF-8.
std::string bytes_json(std::string_view bytes) {
  if (is_utf8(bytes)) return json_string(bytes);
  std::string out = R"({"base64":")";
  append_base64(out, bytes);
  return out + "\"}";
}

std::string bytes_of(const Json& value) {
  if (value.is_string()) return value;
  auto bytes = from_base64(value.at("base64").get_ref<const std::string&>());
  return bytes ? std::move(*bytes) : std::string();
}

/// Reads with a function that may throw what nlohmann throws.
template <class Message, class Read>
Result<Message> read(std::string_view what, std::string_view text, Read&& read_into) {
  const auto value = parse_json(text);
  if (!value) return fail(ErrorCode::kInvalid, std::string(what) + ": " + value.error().context);
  try {
    Message message;
    read_into(*value, message);
    return message;
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kInvalid, std::string(what) + ": " + e.what());
  }
}

}  // namespace

std::string JoinMessage::to_json() const {
  Json held = Json::array();
  for (const JobId job : holds) held.push_back({job.task, job.number});
  return to_text({{"worker", worker}, {"threads", threads}, {"run", run}, {"holds", std::move(held)}});
}

Result<JoinMessage> JoinMessage::from_json(std::string_view text) {
  return read<JoinMessage>("join", text, [](const Json& value, JoinMessage& out) {
    out.worker = value.at("worker");
    out.threads = value.at("threads");
    out.run = value.value("run", "");
    for (const Json& job : value.value("holds", Json::array())) out.holds.push_back(job_of(job));
  });
}

std::string WelcomeMessage::to_json() const {
  Json list = Json::array();
  for (const auto& task : tasks) {
    list.push_back({{"name", task.name}, {"command", task.command}, {"timeout_ms", to_milliseconds(task.timeout)}});
  }
  std::string out = to_text({{"run", run}, {"collector", collector}, {"tasks", std::move(list)}});
  out.pop_back();
  return out + ",\"metadata\":" + (metadata.empty() ? "null" : metadata) + "}";
}

Result<WelcomeMessage> WelcomeMessage::from_json(std::string_view text) {
  return read<WelcomeMessage>("the answer to join", text, [](const Json& value, WelcomeMessage& out) {
    out.run = value.at("run");
    out.collector = value.at("collector");
    out.metadata = to_text(value.value("metadata", Json()));
    for (const Json& task : value.at("tasks")) {
      out.tasks.push_back({task.at("name"), task.value("command", ""),
                           std::chrono::milliseconds(task.value("timeout_ms", std::int64_t{0}))});
    }
  });
}

std::string JobsMessage::to_json() const {
  std::string out = R"({"jobs":[)";
  for (const auto& job : jobs) {
    if (out.back() != '[') out += ',';
    out += id_json(job.job);
    out += ',';
    out += std::to_string(job.attempt);
    out += ',';
    out += bytes_json(job.data);
    out += ']';
  }
  return out + "]}";
}

Result<JobsMessage> JobsMessage::from_json(std::string_view text) {
  return read<JobsMessage>("the answer to take", text, [](const Json& value, JobsMessage& out) {
    for (const Json& job : value.at("jobs")) {
      out.jobs.push_back({job_of(job), job.at(2).get<unsigned>(), bytes_of(job.at(3))});
    }
  });
}

std::string ReportMessage::to_json() const {
  std::string out = R"({"failed":[)";
  for (const auto& failure : failed) {
    if (out.back() != '[') out += ',';
    out += id_json(failure.job) + ',' + std::to_string(failure.exit) + ',' + decimal(failure.seconds, 6) + ',' +
           bytes_json(failure.error) + ']';
  }
  out += R"(],"returned":[)";
  for (const JobId job : returned) {
    if (out.back() != '[') out += ',';
    out += id_json(job) + ']';
  }
  return out + (leaving ? R"(],"leaving":true})" : "]}");
}

Result<ReportMessage> ReportMessage::from_json(std::string_view text) {
  return read<ReportMessage>("report", text, [](const Json& value, ReportMessage& out) {
    for (const Json& failure : value.at("failed")) {
      out.failed.push_back({job_of(failure), failure.at(2), failure.at(3), bytes_of(failure.at(4))});
    }
    for (const Json& job : value.at("returned")) out.returned.push_back(job_of(job));
    out.leaving = value.value("leaving", false);
  });
}

std::string ResultRecord::to_json() const {
  std::string out = R"({"id":)" + json_string(id);
  out += R"(,"task":)" + json_string(task);
  out += R"(,"attempt":)" + std::to_string(attempt);
  out += R"(,"worker":)" + json_string(worker);
  out += R"(,"started":)" + decimal(started, 3);
  out += R"(,"seconds":)" + decimal(seconds, 6);
  out += R"(,"exit":)" + std::to_string(exit);
  out += R"(,"result":)" + result + '}';
  return out;
}

}  // namespace fantail::pipeline
