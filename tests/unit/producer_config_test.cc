#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "producer/config.h"

namespace fantail {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The relay is not beside this test, and any program does for configurations.
[[maybe_unused]] const int kRelayGiven = ::setenv("FANTAIL_RELAY", "/bin/true", 1);

class ProducerConfigTest : public testing::Test {
 protected:
  ProducerConfigTest() { config.files = {"/log/*.log"}; }
  ProducerConfig config;
};

TEST_F(ProducerConfigTest, OneControlLinkListensAtOneAddress) {
  config.endpoints = {"tcp://127.0.0.1:6000", "tcp://127.0.0.1:7000"};
  EXPECT_THAT(config.problems(), IsEmpty()) << "each is a consumer that listens";
  config.bind = true;
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr("7000"), HasSubstr("one control link"), HasSubstr("give one --endpoint"))));
  config.endpoints.pop_back();
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST_F(ProducerConfigTest, OneControlAddressIsNotThatOfSeveralConsumers) {
  config.control = "tcp://127.0.0.1:6500";
  config.endpoints = {"tcp://127.0.0.1:6000"};
  EXPECT_THAT(config.problems(), IsEmpty());
  config.endpoints.emplace_back("tcp://127.0.0.1:7000");
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--control"), HasSubstr("leave it out"))));
}

TEST_F(ProducerConfigTest, WhatHasNoEffectIsRefused) {
  config.advertise = "tcp://10.0.0.7:6001";
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--advertise"), HasSubstr("no effect on tcp"))));
  config.transport = "epgm";
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST_F(ProducerConfigTest, FlagsOfMulticastWithoutMulticastAreRefused) {
  config.multicast.interface = "eth7";
  config.multicast.group = "banana";
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("eth7"), HasSubstr("--transport epgm")),
                                             AllOf(HasSubstr("banana"), HasSubstr("--transport epgm"))));
}

TEST_F(ProducerConfigTest, ANodeNameIsOnePathComponentThatPeopleCanRead) {
  for (const char* name : {"..", ".", "a/b", "a\nb"}) {
    config.node = name;
    EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("--node"))) << name;
  }
  config.node = "a\nb";
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("a\\x0ab")));
  config.node = "web-1.example";
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST_F(ProducerConfigTest, ARelayThatCannotBeRunIsToldBeforeAnythingStarts) {
  config.transport = "epgm";
  ::setenv("FANTAIL_RELAY", "/nonexistent/relay", 1);
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("/nonexistent/relay"), HasSubstr("FANTAIL_RELAY"))));
  ::setenv("FANTAIL_RELAY", "/bin/true", 1);
}

TEST_F(ProducerConfigTest, OnEpgmConsumersMustBeAbleToConnect) {
  config.transport = "epgm";
  for (const char* control : {"tcp://*:6001", "tcp://127.0.0.1:6001", "tcp://127.0.0.1:*"}) {
    config.control = control;
    EXPECT_THAT(config.problems(), IsEmpty()) << control;
  }
  config.control = "ipc:///run/control";
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("over tcp only")));
  config.control = {};
  for (const char* told : {"tcp://*:6001", "tcp://0.0.0.0:6001", "tcp://10.0.0.7:*", "ipc:///run/control"}) {
    config.advertise = told;
    EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("cannot connect"))) << told;
  }
}

/// As a program takes them.
class ProducerFlagsTest : public testing::Test {
 protected:
  OptionSet::Outcome parse(std::vector<const char*> arguments) {
    config = {};
    OptionSet options("fantail-producer", "fantail-producer [options] FILE...", "Tails.");
    config.describe(options);
    arguments.insert(arguments.begin(), "fantail-producer");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const auto outcome =
        options.parse(static_cast<int>(arguments.size()), arguments.data(), [this] { return config.problems(); });
    told = testing::internal::GetCapturedStderr();
    shown = testing::internal::GetCapturedStdout();
    return outcome;
  }
  std::vector<bool> from_end() const {
    std::vector<bool> out;
    for (const Selection& selection : config.selections()) out.push_back(selection.from_end);
    return out;
  }
  ProducerConfig config;
  std::string told;
  std::string shown;
};

TEST_F(ProducerFlagsTest, OneFromIsForAllFilesAndSeveralForThoseBehindThem) {
  ASSERT_EQ(parse({"/a", "/b"}), OptionSet::Outcome::kRun) << told;
  EXPECT_THAT(from_end(), ElementsAre(false, false));
  ASSERT_EQ(parse({"/a", "--from", "end", "/b"}), OptionSet::Outcome::kRun) << told;
  EXPECT_THAT(from_end(), ElementsAre(true, true));
  ASSERT_EQ(parse({"--from", "beginning", "/a", "--from", "end", "/b", "/c", "--from", "beginning", "/d"}),
            OptionSet::Outcome::kRun)
      << told;
  EXPECT_THAT(from_end(), ElementsAre(false, true, true, false));
}

TEST_F(ProducerFlagsTest, AFromThatSaysNothingOfAnyFileIsRefused) {
  EXPECT_EQ(parse({"/a", "--from", "end", "/b", "--from", "beginning", "/c"}), OptionSet::Outcome::kUsageError);
  EXPECT_THAT(told, HasSubstr("'/a': stands before the first of several --from"));
  EXPECT_EQ(parse({"--from", "beginning", "/a", "--from", "end", "--once"}), OptionSet::Outcome::kUsageError);
  EXPECT_THAT(told, HasSubstr("--from 'end': no file stands behind it"));
  EXPECT_EQ(parse({"--from", "middle", "/a"}), OptionSet::Outcome::kUsageError);
  EXPECT_THAT(told, HasSubstr("--from 'middle': must be beginning or end"));
}

TEST_F(ProducerFlagsTest, WhatIsPrintedAsConfigurationSaysTheSameOfEachFile) {
  ASSERT_EQ(parse({"--print-config", "--from", "beginning", "/a", "--from", "end", "/b", "--exclude", "x"}),
            OptionSet::Outcome::kExitOk);
  const std::string path = testing::TempDir() + "producer_config_test.ini";
  std::ofstream(path) << shown;
  ASSERT_EQ(parse({"--config", path.c_str()}), OptionSet::Outcome::kRun) << told;
  EXPECT_THAT(from_end(), ElementsAre(false, true));
  EXPECT_THAT(config.exclude, ElementsAre("x"));
  ASSERT_EQ(parse({"--config", path.c_str(), "/c"}), OptionSet::Outcome::kRun) << told;
  EXPECT_THAT(config.files, ElementsAre("/c")) << "files of the command line replace those of the file";
}

TEST_F(ProducerConfigTest, ALimitIsATopicAndMegabytesPerSecond) {
  config.limit = {"web/access=2.5", "a=b=1"};
  ASSERT_THAT(config.problems(), IsEmpty());
  const auto limits = config.broadcast().limits;
  ASSERT_EQ(limits.size(), 2U);
  EXPECT_EQ(limits[0].topic, "web/access");
  EXPECT_EQ(limits[0].bytes_per_s, 2'500'000U);
  EXPECT_EQ(limits[1].topic, "a=b");
  for (const char* text : {"web", "web=", "web=fast", "web=0", "web=-1", "web=nan", "web=1e9", "web=1MB"}) {
    config.limit = {text};
    EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr(text), HasSubstr("must be TOPIC=MB/s")))) << text;
  }
  config.limit = {"=1"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("a topic must not be empty")));
}

TEST_F(ProducerConfigTest, AnInterfaceThatWentAwayIsAnErrorAndNoMore) {
  config.transport = "epgm";
  config.multicast.interface = "nosuch0";
  const auto multicast = config.epgm_config();
  ASSERT_FALSE(multicast);
  EXPECT_THAT(multicast.error().context, HasSubstr("nosuch0"));
}

}  // namespace
}  // namespace fantail
