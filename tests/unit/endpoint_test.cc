#include "common/transport/endpoint.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <ostream>
#include <string>

namespace fantail {
namespace {

using testing::HasSubstr;

struct Good {
  std::string text;
  std::string spelled;  ///< as libzmq gets it
  std::string control;  ///< where its control link is
  bool local;
  friend std::ostream& operator<<(std::ostream& out, const Good& row) { return out << row.text; }
};

class GoodEndpointTest : public testing::TestWithParam<Good> {};

TEST_P(GoodEndpointTest, IsTakenApartAndSpelledAgain) {
  const auto endpoint = parse_endpoint(GetParam().text);
  ASSERT_TRUE(endpoint) << endpoint.error().context;
  EXPECT_EQ(endpoint->to_string(), GetParam().spelled);
  EXPECT_EQ(endpoint->is_local(), GetParam().local);
}

TEST_P(GoodEndpointTest, HasItsControlLinkBesideIt) {
  const auto endpoint = parse_endpoint(GetParam().text);
  ASSERT_TRUE(endpoint) << endpoint.error().context;
  EXPECT_EQ(control_endpoint(*endpoint).to_string(), GetParam().control);
}

INSTANTIATE_TEST_SUITE_P(
    Table, GoodEndpointTest,
    testing::Values(
        Good{"tcp://127.0.0.1:5550", "tcp://127.0.0.1:5550", "tcp://127.0.0.1:5551", true},
        Good{"tcp://127.8.9.10:1", "tcp://127.8.9.10:1", "tcp://127.8.9.10:2", true},
        Good{"tcp://localhost:5550", "tcp://localhost:5550", "tcp://localhost:5551", true},
        Good{"tcp://[::1]:5550", "tcp://[::1]:5550", "tcp://[::1]:5551", true},
        Good{"tcp://192.0.2.7:5550", "tcp://192.0.2.7:5550", "tcp://192.0.2.7:5551", false},
        Good{"tcp://127.example.net:5550", "tcp://127.example.net:5550", "tcp://127.example.net:5551", false},
        Good{"tcp://logs.example.net:5550", "tcp://logs.example.net:5550", "tcp://logs.example.net:5551", false},
        Good{"tcp://[2001:db8::1]:5550", "tcp://[2001:db8::1]:5550", "tcp://[2001:db8::1]:5551", false},
        Good{"tcp://eth0:5550", "tcp://eth0:5550", "tcp://eth0:5551", false},
        Good{"tcp://*:5550", "tcp://*:5550", "tcp://*:5551", false}, Good{"tcp://*:*", "tcp://*:*", "tcp://*:*", false},
        Good{"tcp://*:0", "tcp://*:*", "tcp://*:*", false},
        Good{"tcp://127.0.0.1:65534", "tcp://127.0.0.1:65534", "tcp://127.0.0.1:65535", true},
        Good{"tcp://127.0.0.1:65535", "tcp://127.0.0.1:65535", "tcp://127.0.0.1:65534", true},
        Good{"ipc:///run/fantail/data", "ipc:///run/fantail/data", "ipc:///run/fantail/data.control", true},
        Good{"ipc://@abstract", "ipc://@abstract", "ipc://@abstract.control", true},
        Good{"inproc://here", "inproc://here", "inproc://here.control", true}),
    [](const auto& row) { return "Row" + std::to_string(row.index); });

struct Bad {
  std::string text;
  std::string why;
  friend std::ostream& operator<<(std::ostream& out, const Bad& row) { return out << row.text; }
};

class BadEndpointTest : public testing::TestWithParam<Bad> {};

TEST_P(BadEndpointTest, IsRefusedWithASentenceThatNamesItAndTheFault) {
  const auto endpoint = parse_endpoint(GetParam().text);
  ASSERT_FALSE(endpoint) << endpoint->to_string();
  EXPECT_EQ(endpoint.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(endpoint.error().context, HasSubstr("'" + GetParam().text + "'"));
  EXPECT_THAT(endpoint.error().context, HasSubstr(GetParam().why));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadEndpointTest,
    testing::Values(Bad{"", "unknown transport"}, Bad{"127.0.0.1:5550", "unknown transport"},
                    Bad{"udp://127.0.0.1:5550", "unknown transport"}, Bad{"TCP://127.0.0.1:5550", "unknown transport"},
                    Bad{" tcp://127.0.0.1:5550", "unknown transport"}, Bad{"tcp:", "unknown transport"},
                    Bad{"tcp://", "no port"}, Bad{"tcp://127.0.0.1", "no port"}, Bad{"tcp://:5550", "no host"},
                    Bad{"tcp://127.0.0.1:", "the port must be"}, Bad{"tcp://127.0.0.1:65536", "the port must be"},
                    Bad{"tcp://127.0.0.1:99999999999999999999", "the port must be"},
                    Bad{"tcp://127.0.0.1:-1", "the port must be"}, Bad{"tcp://127.0.0.1:+1", "the port must be"},
                    Bad{"tcp://127.0.0.1:55x", "the port must be"}, Bad{"tcp://127.0.0.1:5550/", "the port must be"},
                    Bad{"tcp://127.0.0.1: 5550", "the port must be"}, Bad{"tcp://127.0.0.1:00", "the port must be"},
                    Bad{"ipc://", "no path"}, Bad{"ipc:///" + std::string(98, 'x'), "98 bytes"},
                    Bad{"norm://239.192.0.1:5550", "norm is not supported"},
                    Bad{"epgm://eth0;239.192.0.1:5550", "--transport epgm"},
                    Bad{"pgm://eth0;239.192.0.1:5550", "--transport epgm"}),
    [](const auto& row) { return "Row" + std::to_string(row.index); });

TEST(EndpointTest, WhatListensOnAllInterfacesIsReachedAtOneOfThem) {
  EXPECT_EQ(reachable_at("tcp://0.0.0.0:6001", "10.0.0.7"), "tcp://10.0.0.7:6001");
  EXPECT_EQ(reachable_at("tcp://*:6001", "10.0.0.7"), "tcp://10.0.0.7:6001");
  EXPECT_EQ(reachable_at("tcp://[::]:6001", "10.0.0.7"), "tcp://10.0.0.7:6001");
  EXPECT_EQ(reachable_at("tcp://10.0.0.8:6001", "10.0.0.7"), "tcp://10.0.0.8:6001");
  EXPECT_EQ(reachable_at("ipc:///run/control", "10.0.0.7"), "ipc:///run/control");
}

TEST(EndpointTest, LongestPathThatIsAcceptedLeavesRoomForTheControlSocket) {
  const auto endpoint = parse_endpoint("ipc:///" + std::string(97, 'x'));
  ASSERT_TRUE(endpoint);
  constexpr std::size_t kSunPath = 108;  // sockaddr_un::sun_path, with its final zero
  EXPECT_LT(control_endpoint(*endpoint).host.size(), kSunPath);
}

TEST(InterfaceTest, EveryInterfaceResolvesByItsAddressAndByItsName) {
  const auto all = network_interfaces();
  for (const auto& i : all) {
    EXPECT_EQ(resolve_interface(i.address), i.address);
    const auto by_name = resolve_interface(i.name);
    ASSERT_TRUE(by_name) << i.name;
    EXPECT_TRUE(std::any_of(all.begin(), all.end(),
                            [&](const auto& other) { return other.name == i.name && other.address == *by_name; }));
  }
}

TEST(InterfaceTest, UnknownOneIsRefusedAndThoseThatExistAreNamed) {
  for (const std::string_view unknown : {"no-such-interface", "192.0.2.254", "", "239.192.0.1"}) {
    const auto resolved = resolve_interface(unknown);
    ASSERT_FALSE(resolved) << *resolved;
    EXPECT_EQ(resolved.error().code, ErrorCode::kInvalid);
    for (const auto& i : network_interfaces()) {
      EXPECT_THAT(resolved.error().context, HasSubstr(i.name + " (" + i.address + ")"));
    }
  }
}

TEST(EpgmAddressTest, IsSpelledWithTheInterfaceAsAnAddress) {
  EXPECT_EQ(epgm_address("192.0.2.7", "239.192.0.1", 5550), "epgm://192.0.2.7;239.192.0.1:5550");
  EXPECT_TRUE(epgm_address("192.0.2.7", "224.0.0.1", 1));
  EXPECT_TRUE(epgm_address("192.0.2.7", "239.255.255.255", 65535));
}

TEST(EpgmAddressTest, GroupThatIsNoMulticastAddressIsRefusedWithAnExample) {
  for (const std::string_view group : {"", "192.0.2.1", "223.255.255.255", "240.0.0.1", "239.192.0", "239.192.0.1.1",
                                       "239.192.0.256", "ff02::1", "group.example.net", "239.192.0.1 "}) {
    const auto address = epgm_address("192.0.2.7", group, 5550);
    ASSERT_FALSE(address) << *address;
    EXPECT_EQ(address.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(address.error().context, HasSubstr("239.192.0.0"));
  }
}

}  // namespace
}  // namespace fantail
