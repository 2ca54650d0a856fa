#include <gmock/gmock.h>

#include <cstdlib>

#include "consumer/config.h"

namespace fantail {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The relay is not beside this test, and any program does for configurations.
[[maybe_unused]] const int kRelayGiven = ::setenv("FANTAIL_RELAY", "/bin/true", 1);

TEST(ConsumerConfigTest, OneControlLinkListensAtOneAddress) {
  ConsumerConfig config;
  config.endpoints = {"tcp://127.0.0.1:6000"};
  EXPECT_THAT(config.problems(), IsEmpty());
  config.endpoints.emplace_back("tcp://127.0.0.1:7000");
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr("7000"), HasSubstr("one control link"), HasSubstr("give one --endpoint"))));
}

TEST(ConsumerConfigTest, SeveralProducersThatListenAreFine) {
  ConsumerConfig config;
  config.connect = {"tcp://127.0.0.1:6000", "tcp://127.0.0.1:7000"};
  config.endpoints = {"tcp://127.0.0.1:8000"};
  config.control = "tcp://127.0.0.1:8500";
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST(ConsumerConfigTest, AControlAddressWhereNobodyConnectsIsRefused) {
  ConsumerConfig config;
  config.control = "tcp://127.0.0.1:8500";
  EXPECT_THAT(config.problems(), IsEmpty()) << "at the default endpoint";
  config.connect = {"tcp://127.0.0.1:6000"};
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--control"), HasSubstr("without --endpoint"))));
  config.connect = {};
  config.transport = "epgm";
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--control"), HasSubstr("on epgm"))));
}

TEST(ConsumerConfigTest, ADirectoryIsNoFileToWriteTo) {
  const std::string directory = testing::TempDir();
  ConsumerConfig config;
  config.outputs = {"file:" + directory};
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr(directory), HasSubstr("is a directory"), HasSubstr("mirror:"))));
  config.outputs = {"file:not-there-yet/"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("not-there-yet/all.log")));
  config.outputs = {"file:/dev/null", "mirror:" + directory};
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST(ConsumerConfigTest, AnOutputGivenTwiceIsRefusedHoweverItIsWritten) {
  ConsumerConfig config;
  config.outputs = {
      "mirror:somewhere/d", "mirror:./somewhere/x/../d/", "file:a.log", "stdout", "file:./a.log", "stdout:"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("x/../d/"), HasSubstr("./a.log"), HasSubstr("stdout:")));
  config.outputs = {"mirror:", "file:"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("a directory"), HasSubstr("a file")));
}

TEST(ConsumerConfigTest, AnInterfaceThatWentAwayIsAnErrorAndNoMore) {
  ConsumerConfig config;
  config.transport = "epgm";
  config.multicast.interface = "nosuch0";
  const auto multicast = config.epgm_config();
  ASSERT_FALSE(multicast);
  EXPECT_THAT(multicast.error().context, HasSubstr("nosuch0"));
}

}  // namespace
}  // namespace fantail
