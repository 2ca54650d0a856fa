#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What reports of state are made of: objects with texts of any bytes, and the text format of Prometheus.
namespace fantail {

/// As `key`; what is not UTF-8 as `key`_base64.
void put_text(nlohmann::json& object, const std::string& key, std::string_view text);
/// The inverse; empty when it is not there.
std::string text_in(const nlohmann::json& object, const std::string& key);

/// Metrics in the text format of Prometheus, version 0.0.4.
class MetricsText {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;
  /// Before the values of a metric. `type`: "gauge" or "counter".
  void head(const std::string& name, std::string_view type, std::string_view help);
  void value(const std::string& name, const Labels& labels, double value);
  void gauge(const std::string& name, std::string_view help, double number) {
    head(name, "gauge", help);
    value(name, {}, number);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace fantail
