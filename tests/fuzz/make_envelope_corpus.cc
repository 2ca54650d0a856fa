// usage: make_envelope_corpus DIR    writes one seed of the envelope corpus per sample message, and some that must be
// refused
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/envelope_input.h"
#include "tests/support/wire_samples.h"

namespace {

bool write(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return file.good();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace fantail;  // NOLINT
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_envelope_corpus DIR\n");
    return 2;
  }
  const std::filesystem::path dir = argv[1];
  bool ok = write(dir / "empty", {});
  for (auto sample : test::wire_samples()) {
    ok = write(dir / sample.name, test::EnvelopeInput{sample.topic, sample.header, sample.payload}.join()) && ok;
    if (sample.name != "Hello") continue;
    sample.header[4] = std::byte{2};
    ok = write(dir / "HelloOfAnotherMajor", test::EnvelopeInput{sample.topic, sample.header, {}}.join()) && ok;
    sample.header.resize(wire::kPrefixBytes);
    ok = write(dir / "PrefixOnly", test::EnvelopeInput{sample.topic, sample.header, {}}.join()) && ok;
  }
  if (!ok) std::fprintf(stderr, "cannot write to %s\n", argv[1]);
  return ok ? 0 : 1;
}
