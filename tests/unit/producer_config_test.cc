#include <gmock/gmock.h>

#include <cstdlib>

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

TEST_F(ProducerConfigTest, AnInterfaceThatWentAwayIsAnErrorAndNoMore) {
  config.transport = "epgm";
  config.multicast.interface = "nosuch0";
  const auto multicast = config.epgm_config();
  ASSERT_FALSE(multicast);
  EXPECT_THAT(multicast.error().context, HasSubstr("nosuch0"));
}

}  // namespace
}  // namespace fantail
