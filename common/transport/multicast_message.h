#pragma once

#include <optional>

#include "common/transport/broadcast.h"
#include "common/transport/frame.h"

namespace fantail {

/// On multicast a message is one part: topic, header and payload one behind the other, then their sizes. libzmq 4.3.4
/// mixes up the parts of messages that several epgm publishers send at the same time, but never splits one part. The
/// topic comes first, so that subscriptions by prefix work.
///
///     topic | header | payload | topic bytes, u32 little-endian | header bytes, u32 little-endian
Frame pack_multicast(const BroadcastMessage& message);

/// Nothing if the sizes do not fit. The payload is a copy: the parts outlive `packed`.
std::optional<BroadcastMessage> unpack_multicast(const Frame& packed);

}  // namespace fantail
