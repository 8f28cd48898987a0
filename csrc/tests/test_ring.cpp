#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "ring.h"
#include "waiting.h"

namespace refavs {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kNow{0};

TEST(Ring, HoldsItsCapacityAndGivesItemsInOrder) {
  Ring<std::unique_ptr<int>> ring(3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(ring.push(std::make_unique<int>(i)));
  auto fourth = std::make_unique<int>(3);
  EXPECT_EQ(ring.push(fourth, kNow), RingStatus::kTimeout);
  ASSERT_TRUE(fourth) << "what was not taken is still the caller's";
  std::unique_ptr<int> item;
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(ring.pop(&item, kNow), RingStatus::kDone);
    EXPECT_EQ(*item, i);
    auto next = std::make_unique<int>(i + 3);
    EXPECT_EQ(ring.push(next, kNow), RingStatus::kDone);
    EXPECT_FALSE(next);
  }
}

TEST(Ring, AnEmptyOneIsWaitedFor) {
  Ring<int> ring(2);
  int item = 0;
  EXPECT_EQ(ring.pop(&item, kNow), RingStatus::kTimeout);
  EXPECT_EQ(ring.wait_item(kNow), RingStatus::kTimeout);
  auto popped = std::async(std::launch::async, [&] { return ring.pop(&item, kAtLast); });
  EXPECT_EQ(popped.wait_for(kAWhile), std::future_status::timeout);
  EXPECT_TRUE(ring.push(7));
  EXPECT_EQ(popped.get(), RingStatus::kDone);
  EXPECT_EQ(item, 7);
}

TEST(Ring, FinishLetsGoOfWaitersAndKeepsWhatIsThere) {
  Ring<int> ring(1);
  ring.push(1);
  auto pushed = std::async(std::launch::async, [&] { return ring.push(2); });
  EXPECT_EQ(pushed.wait_for(kAWhile), std::future_status::timeout);
  ring.finish();
  EXPECT_FALSE(pushed.get());
  int item = 0;
  EXPECT_EQ(ring.pop(&item, kNow), RingStatus::kDone);
  EXPECT_EQ(item, 1);
  EXPECT_EQ(ring.pop(&item, kAtLast), RingStatus::kEnded);
  EXPECT_EQ(ring.wait_item(kAtLast), RingStatus::kEnded);
  EXPECT_EQ(ring.push(item, kAtLast), RingStatus::kEnded);
}

TEST(Ring, CancelLetsGoOfEverything) {
  const auto counted = std::make_shared<int>(0);
  Ring<std::shared_ptr<int>> ring(2);
  ring.push(counted);
  ring.push(counted);
  auto pushed = std::async(std::launch::async, [&] { return ring.push(counted); });
  EXPECT_EQ(pushed.wait_for(kAWhile), std::future_status::timeout);
  ring.cancel();
  EXPECT_FALSE(pushed.get());
  EXPECT_EQ(counted.use_count(), 1);
  std::shared_ptr<int> item;
  EXPECT_EQ(ring.pop(&item, kAtLast), RingStatus::kEnded);
}

TEST(Ring, APoppedSlotHoldsNothing) {
  struct Copied {
    std::shared_ptr<int> value;
    Copied() = default;
    Copied(const Copied&) = default;
    Copied& operator=(const Copied&) = default;  // so that moving from a slot leaves it as it was
  };
  const auto counted = std::make_shared<int>(0);
  Ring<Copied> ring(2);
  {
    Copied item;
    item.value = counted;
    ring.push(item);
    ring.pop(&item, kNow);
  }
  EXPECT_EQ(counted.use_count(), 1);
}

// Each item tells how many there are.
struct Alive {
  static std::atomic<int> count;
  int number = -1;
  explicit Alive(int n) : number(n) { ++count; }
  ~Alive() { --count; }
};
std::atomic<int> Alive::count{0};

TEST(Ring, TwoThreadsLoseNothingAndStayWithinTheCapacity) {
  constexpr int kItems = 20000, kCapacity = 5;
  Ring<std::unique_ptr<Alive>> ring(kCapacity);
  std::thread producer([&] {
    for (int i = 0; i < kItems; ++i) ring.push(std::make_unique<Alive>(i));
    ring.finish();
  });
  std::unique_ptr<Alive> item;
  int next = 0, most = 0;
  while (ring.pop(&item, kAtLast) == RingStatus::kDone) {
    EXPECT_EQ(item->number, next++);
    most = std::max(most, Alive::count.load());
  }
  producer.join();
  EXPECT_EQ(next, kItems);
  EXPECT_LE(most, kCapacity + 2) << "one in each hand";
}

}  // namespace
}  // namespace refavs
