#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/wire/codec.h"
#include "tests/fuzz/envelope_input.h"
#include "tests/support/wire_oracle.h"

// Any three frames go through the envelope. The digest is no protection against malice, so the body goes to the decoder
// of its kind whether the digest holds or not.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fantail;  // NOLINT
  const auto input = test::EnvelopeInput::split(std::as_bytes(std::span(data, size)));
  const auto envelope = wire::open_envelope(input.topic, input.header, input.payload);
  if (envelope) test::decode_and_check(envelope->kind, envelope->body, input.payload);

  (void)wire::claimed_major(input.header);
  (void)wire::topic_problem(input.topic);
  if (input.header.size() < wire::kPrefixBytes) return 0;
  const auto kind = static_cast<wire::Kind>(input.header[5]);
  const auto body = input.header.subspan(wire::kPrefixBytes);
  const std::vector<std::byte> alone(body.begin(), body.end());  // ends where it ends, for the address sanitizer
  test::decode_and_check(kind, alone, input.payload);
  return 0;
}
