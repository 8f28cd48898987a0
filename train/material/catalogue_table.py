"""What the pictures show, by hand: the captions of the stamps are too loose to name a thing by.

One line a class:  name | files | other words for it | kinds it belongs to | verb of its sound
A word after `~` is one that someone may wrongly call it by, or names a part of it that shows: it is never said, and never said
of another thing beside it.

Files are stamps under the folder of the section, without suffix; `+` marks those whose own recording is used as the sound of
the thing. Left out: drawings, silent or foreign recordings, symbols, cut-outs with bad edges, mirror images.
"""

from __future__ import annotations

TABLE = """
[animals/amphibians]
frog | +frog frog-1 | | animal amphibian | croak
[animals/birds]
rosella | adelaide-rosella rainbow-lorikeet | parrot, ~toucan | animal bird |
white peahen | albino_peahen | peahen, peafowl | animal bird |
blackbird | +blackbird | ~crow, ~raven | animal bird | sing
hen | +hen chicken_profile | chicken, ~rooster | animal bird | cluck
crane | crowned_crane | crowned crane, ~heron | animal bird |
crow | +crow | raven, ~blackbird | animal bird | caw
cuckoo | +cuckoo | | animal bird | call
duck | +duck +drake | mallard | animal bird | quack
goose | +gander | gander, ~duck | animal bird | honk
guinea fowl | guineafowl helmeted_guineafowl | guineafowl, ~chicken, ~turkey | animal bird |
heron | +heron_greatblue_flying heron_greatblue | great blue heron, ~crane | animal bird | croak
lark | +lark | ~sparrow | animal bird | sing
penguin | +penguin little-penguin magellanic_penguin | | animal bird | call
magpie | magpie | | animal bird |
ostrich | ostrich nandou | rhea | animal bird |
owl | +owl | white owl | animal bird | hoot
peacock | peacock | peafowl | animal bird |
pelican | pelican | | animal bird |
pigeon | pigeon | dove, ~seagull | animal bird |
flamingo | pink_flamingo | pink flamingo | animal bird |
quetzal | +quetzal | | animal bird | sing
rooster | +rooster | cock, cockerel, chicken, colorful rooster, ~hen | animal bird | crow
seagull | +seagull silver-gull | gull, sea bird, ~pigeon | animal bird | squawk
toucan | +tucan | | animal bird | squawk
turkey | +turkey | ~chicken | animal bird | gobble
vulture | +vulture | | animal bird | hiss
[animals/fish]
blue groper | bluegroper | blue fish, groper, ~trout | animal fish |
butterflyfish | butterflyfish | yellow fish, ~striped fish | animal fish |
clownfish | clownfish | ~butterflyfish, ~striped fish | animal fish |
trout | coraltrout | coral trout, ~dolphinfish | animal fish |
dolphinfish | dolphinfish | ~trout | animal fish |
lionfish | lionfish | | animal fish |
lobster | lobster | crayfish | animal |
seahorse | seahorse | sea horse, ~fish | animal |
shrimp | shrimp | prawn | animal |
striped fish | stripedfish | ~butterflyfish | animal fish |
[animals/insects]
slug | Brown_slug | brown slug | animal |
woodlouse | Woodlouse | | animal insect |
fly | fly | housefly | animal insect |
grasshopper | +grasshopper | cricket | animal insect | chirp
hornet | +hornet | wasp, ~bee, ~fly, ~hoverfly | animal insect | buzz
hoverfly | hoverfly | ~bee, ~wasp, ~hornet, ~fly | animal insect |
mantis | mantis | praying mantis | animal insect |
moth | xanthia | | animal insect |
[animals/lizards]
iguana | iguana | lizard | animal reptile |
[animals/mammals/apes]
chimpanzee | +chimp | chimp, ape, monkey | animal ape | screech
gorilla | +gorilla | ape, monkey | animal ape | grunt
tamarin | tamarin_emperor | monkey, emperor tamarin | animal ape |
[animals/mammals/aquatic]
dolphin | +dolphin | ~whale, ~orca, ~fish | animal | click
orca | +orca | killer whale, whale, ~dolphin, ~fish | animal | call
otter | otter | ~ferret, ~sea lion, ~beaver | animal |
sea lion | +sea_lion | seal, ~otter | animal | bark
whale | +whale | ~dolphin, ~fish | animal | sing
[animals/mammals]
badger | +badger | ~ferret | animal | growl
[animals/mammals/bears]
bear | +bear european-bear | brown bear | animal | growl
[animals/mammals/bovines]
bison | +bison | buffalo, ~yak, ~cow, ~bull | animal cattle | grunt
bull | +bull | ox, ~cow | animal cattle | bellow
cow | +cow +cow_white | ~bull | animal cattle | moo
gnu | gnu-baby-stand gnu-baby gnu-sitting gnu-stand | wildebeest, ~cow, ~bull, ~buffalo, ~antelope | animal |
goat | +goat | | animal | bleat
antelope | indian_blackbuck | blackbuck, ~deer, ~goat, ~doe | animal |
mountain goat | +mountaingoat | goat, chamois, ~antelope, ~deer | animal | bleat
ram | +ram | sheep | animal | bleat
lamb | +sheep_lamb | sheep, baby sheep | animal | bleat
sheep | +sheep | | animal | bleat
yak | yak | ~cow, ~bison, ~bull | animal cattle |
zebu | zebu | cow, ~bull | animal cattle |
[animals/mammals/camel]
camel | +camel | ~dromedary | animal | grunt
dromedary | +dromedary | camel | animal | grunt
[animals/mammals/cats]
lion | +lion lion-2 | ~tiger | animal cat | roar
tiger | +tiger tiger_sumatran | | animal cat | roar
[animals/mammals/deer]
reindeer | +caribou | caribou, deer, ~elk | animal | grunt
deer | +deer | stag, ~antelope, ~elk | animal |
doe | +doe | deer, fawn | animal |
elk | wapiti | wapiti, deer, ~reindeer | animal |
[animals/mammals/dogs]
dingo | dingo | dog, wild dog, ~fox | animal |
dog | +dog | husky | animal | bark
fox | +fox | red fox, ~dingo, ~dog | animal | bark
[animals/mammals]
elephant | +elephant | | animal | trumpet
[animals/mammals/equines]
donkey | +donkey donkey_eating | ~horse | animal | bray
horse | +horse | brown horse, ~donkey | animal | neigh
zebra | +zebra | | animal | bark
[animals/mammals]
ferret | +ferret | polecat, ~otter, ~weasel | animal | squeak
giraffe | giraffe | | animal |
hippopotamus | +hippopotamus | hippo | animal | grunt
pig | +pig +pig_golden +pig_golden2 | | animal | grunt
rabbit | rabbit_little rodents/rabbit-2 +rodents/rabbit | bunny, hare | animal rodent | squeak
rhinoceros | rhino_black | rhino | animal |
wild boar | wildboar | boar, pig | animal |
[animals/mammals/rodents]
beaver | +beaver | ~marmot, ~rat | animal rodent | growl
capybara | capybara | ~wombat, ~marmot, ~beaver | animal rodent |
marmot | marmot | groundhog, ~beaver, ~squirrel | animal rodent |
mouse | +mouse | ~rat | animal rodent | squeak
rat | rat | mouse | animal rodent |
squirrel | +squirrel | | animal rodent | chatter
[animals/marsupials]
kangaroo | kangaroo | | animal |
koala | +koala | koala bear | animal | grunt
wombat | wombat | ~koala, ~bear, ~capybara | animal |
[animals/shellfish]
abalone | abalone | shell, seashell | animal |
mussel | murray-mussel | shell, seashell | animal |
[animals/mammals/bears/toys]
teddy bear | edward_bear | bear, teddy | toy |
[clothes]
clothespin | clothespin_new | peg, wooden clothespin | |
[food/fruit]
apricot | Apricot_whole apricot | peach, ~orange, ~apple | food fruit |
cherries | Cherry_Stella | pair of cherries, cherry | food fruit |
strawberry | Strawberry2 | | food fruit |
apple | apple_fuji apple_granny_smith apple_green apple_red apple_sierra_beauty | ~pear | food fruit |
avocado | avocado | ~vegetable | food fruit |
banana | banana | | food fruit |
cherimoya | cherimoya | ~lemon, ~pear | food fruit |
bunch of grapes | grapes | grapes | food fruit |
kiwi | kiwi | kiwifruit | food fruit |
lemon | lemon | ~lime | food fruit |
orange | mandarine orange orange_seville | mandarin, ~grapefruit | food fruit |
mango | mango | ~apple | food fruit |
pear | pear | ~apple | food fruit |
pineapple | pineapple | | food fruit |
pomegranate | pomegranate | ~apple, ~onion | food fruit |
raspberry | raspberry | | food fruit |
slice of lime | sliced_lime | lime, sliced lime, ~lemon | food fruit |
slice of orange | sliced_orange | orange, sliced orange | food fruit |
[food/nuts]
almond | almond | nut, ~walnut, ~pecan | food nut |
pecan | pecan | nut, ~almond, ~walnut | food nut |
walnut | walnut | nut | food nut |
[food]
ginger root | spices/ginger | ginger | food vegetable |
[food/vegetables]
broccoli | broccoli | | food vegetable |
carrot | carrot | | food vegetable |
chili pepper | chilepepper | pepper, chili | food vegetable |
corn | corn | ear of corn, corn cob | food vegetable |
eggplant | eggplant | aubergine | food vegetable |
garlic | garlic garlics | ~onion | food vegetable |
lettuce | lettuce redlettuce | ~cabbage | food vegetable |
mushroom | mushroom | | food vegetable |
onion | onion | ~garlic | food vegetable |
squash | pattypan_squash | ~pumpkin | food vegetable |
bell pepper | pepper yellowpepper | pepper | food vegetable |
potato | potato | | food vegetable |
pumpkin | pumpkin_small | | food vegetable |
tomato | tomato | red tomato, ~apple, ~fruit | food vegetable |
yam | yam | sweet potato, ~eggplant | food vegetable |
[hobbies]
binoculars | binoculars | pair of binoculars | |
camera | +camera_35mm | | | click
[hobbies/music]
trumpet | brass/trumpet | | instrument brass | =play
cymbal | +percussion/cymbal_crash | crash cymbal | instrument percussion | =play
floor tom | +percussion/drum_tomtom_floor | drum, tom, red drum | instrument percussion | =play
drum kit | +percussion/drumkit | drums, drum set, drum, ~cymbal, ~crash cymbal, ~floor tom, ~tom | instrument percussion | =play
cello | +string/cello | ~violin, ~guitar, ~double bass | instrument strings | =play
electric guitar | string/guitar2 string/guitar_electric | guitar, ~bass guitar | instrument strings | =play
classical guitar | string/guitar_classical | guitar, acoustic guitar, ~violin, ~cello | instrument strings | =play
bass guitar | string/guitar_electric_bass | guitar, bass, electric bass, ~electric guitar | instrument strings | =play
violin | +string/violin | fiddle, ~cello, ~guitar | instrument strings | =play
bassoon | +wind/bassoon | | instrument woodwind | =play
[household]
light bulb | Lightbulb | bulb, lightbulb | |
highlighter | arttools/highlighter | marker, pen, ~marker pen | |
marker | arttools/pen_dryerase | pen, red marker, ~highlighter | |
scissors | +arttools/scissors_small_closed +arttools/scissors_small_open | pair of scissors | tool | cut
gas cylinder | cylinder | gas bottle, red cylinder | |
mug | dishes/mug | cup, ~glass | tableware |
pitcher | dishes/pitcher_small | jug, ~teapot | tableware |
teapot | dishes/teapot | kettle, ~pitcher | tableware |
nutcracker | dishes/utensils/nutcracker | | tool |
pepper grinder | dishes/utensils/pepper_grinder | pepper mill | |
garbage can | garbagecan | trash can, bin, ~bucket | container |
compost bin | home_compost_bin | bin | container |
kettle | +kettle | electric kettle | | boil
key | key | | |
rubber duck | +rubberduck | duck, toy duck, ~bird | toy | squeak
toilet | +toilet | | | flush
cement mixer | tools/cementmixer | concrete mixer, ~tractor, ~wheel, ~tire | machine |
hammer | +tools/hammer | | tool | hit
mallet | +tools/mallet_metal | sledgehammer, hammer | tool | hit
tape measure | tools/measuring_tape | measuring tape | tool |
paintbrush | tools/paintbrush_large | brush | tool |
pliers | tools/plyers | pair of pliers | tool |
saw | +tools/saw | handsaw | tool | saw
spade | tools/spade | shovel, ~fork | tool |
toolbox | tools/toolbox | red box | container |
wrench | tools/wrench_adjustable tools/wrench_plumbers tools/wrench | spanner | tool |
wheelie bin | wheelie_bin | bin, green bin, garbage can, ~wheel, ~tire | container |
[medical]
thermometer | mercurythermometer | | tool |
stethoscope | stethoscope | | tool |
syringe | syringe | | tool |
[military]
firefighter | fireman240a | fireman, man, person | person |
parachutist | paratrooper | paratrooper, parachute, person | person |
tank | vehicles/bradley | armored vehicle | vehicle |
fighter jet | vehicles/f22_raptor | jet, plane, airplane, aircraft | vehicle |
armored vehicle | vehicles/infantry-stryker | tank, ~truck, ~car, ~wheel, ~tire | vehicle |
[naturalforces]
fire | fire | flame, flames | |
[people]
rag doll | toys/grannysmith | doll | toy |
[plants/flowers]
desert rose | adeenia | flower, pink flower, ~hibiscus, ~rose | plant |
anemone | anemone_red | flower, red flower | plant |
balsam flower | bolsom | flower, white flower, ~petunia | plant |
daffodil | daffodil | flower | plant |
hibiscus | chemparathi flower10 | flower, ~rose | plant |
flower | flower1 flower2 flower3 flower4 flower5 flower6 flower7 flower8 flower9 yellow-flower whitestar-petunia | ~hibiscus, ~rose | plant |
iris | iris | flower | plant |
marigold | marigold | flower, orange flower, ~chrysanthemum | plant |
pigface flower | pigface | flower, purple flower | plant |
gazania | red-gazania | flower | plant |
rose | rose | flower, red rose | plant |
[plants]
lavender | lavender | lavender plant, flower, ~leaves | plant |
bolete | mushrooms/cep-1 mushrooms/cep-2 mushrooms/cep | mushroom | |
thyme | thyme | thyme plant, bush, ~leaves | plant |
birch | trees/birch | tree, birch tree, bare tree, ~oak, ~palm tree, ~leaves | plant |
holly leaves | trees/holly_leaves | holly, leaves | plant |
oak | trees/holm_oak | tree, oak tree, ~birch, ~leaves | plant |
palm tree | trees/liberia-palm | tree, palm, ~leaves | plant |
pine cone | trees/pinecone | pinecone, cone | plant |
nut tree | trees/tree336 | tree, ~oak, ~birch, ~leaves | plant |
[seasonal]
candle | candle | lit candle, ~fire, ~flame, ~flames | |
candy cane | christmas/Candy_cane_photo_1 christmas/Candy_cane_photo_2 | | food |
Christmas tree | christmas/Christmas_Tree_photo | tree, ~plant | |
Christmas pudding | christmas/Christmas_pudding | pudding, cake | food |
wooden toy | christmas/German_Christmas_toy | wooden figure, doll | toy |
pie | christmas/Mince_Pie | mince pie | food |
roast turkey | christmas/Roast_turkey | turkey, roast chicken | food |
wreath | christmas/xmaswreath | pine wreath, ~pine cone, ~plant, ~leaves | |
gravestone | halloween/grave-a halloween/grave-b halloween/grave-d halloween/grave-e halloween/grave-f halloween/grave-g halloween/grave-i | tombstone, headstone | |
stone cross | halloween/grave-c | cross, gravestone | |
[space]
moon | moon/moon_3qt moon/moon_full | full moon | planet |
planet Venus | planets/2_venus | | planet |
Earth | planets/3_earth | globe | planet |
planet Mars | planets/4_mars | | planet |
planet Jupiter | planets/5_jupiter | | planet |
planet Saturn | planets/6_saturn | planet with rings | planet |
blue planet | planets/7_uranus planets/8_neptune | | planet |
astronaut | spacewalk | spaceman, person | person |
space probe | voyager2 | satellite, probe | |
[sports]
Australian football | australian_rules_football | ball, football, red ball | ball-like |
basketball | basketball | ball | ball-like |
cricket ball | cricketball | ball, ~tennis ball | ball-like |
football | football | ball, American football | ball-like |
soccer ball | soccer | ball, football, ~basketball | ball-like |
tennis ball | tennis_ball | ball | ball-like |
tennis racket | tennis_racket | racket | |
trophy | trophy_cup | trophy cup, cup | |
[town]
stone statue | monuments/inukshuk-photo | inukshuk, statue, pile of stones | |
dead end sign | roadsigns/dead_end_sign | sign, road sign | road-sign |
no entry sign | roadsigns/no_entry_sign | sign, road sign | road-sign |
railroad crossing sign | roadsigns/railroad_crossing | sign, railroad crossing | road-sign |
school sign | roadsigns/school_sign | sign, road sign | road-sign |
stop sign | roadsigns/stop | sign, road sign | road-sign |
traffic cone | roadsigns/traffic_cone | cone | |
post box | uk_post_box | mailbox, red post box | container |
mailbox | usps_mailbox | post box, blue mailbox | container |
[vehicles]
wheel | 7spoke256 wheel_tractor | tire | |
car | auto/beetle auto/sedan auto/sportscar2 | ~race car, ~wheel, ~tire | vehicle |
pickup truck | auto/truck | truck, pickup, car, ~wheel, ~tire | vehicle |
dumper | construction/dumper | dump truck, truck, ~tractor, ~car, ~wheel, ~tire | vehicle |
tricycle | cycle/pink_tricycle | pink tricycle, bike, ~wheel, ~tire | vehicle |
fire truck | +emergency/firetruck | fire engine, truck, emergency car, ~wheel, ~tire | vehicle | wail
hot air balloon | flight/balloon360 | balloon | vehicle |
airplane | flight/planes/747 | plane, aircraft, ~wheel, ~tire | vehicle |
garbage truck | garbagetruck | truck, ~wheel, ~tire | vehicle |
bus | masstransit/green_korean_bus | green bus, ~wheel, ~tire | vehicle |
race car | race/indycar | racing car, car, ~wheel, ~tire | vehicle |
sailing ship | ship/chineseJunk | ship, boat, sailboat | vehicle |
sailboat | ship/walnutBoat | boat, sailing boat, ~sailing ship | vehicle |
"""

UNSEEN = frozenset(
    "cuckoo,toucan,hippopotamus,koala,orca,bison,bassoon,rubber duck,grasshopper,camera,"
    "ostrich,pelican,seahorse,lobster,mantis,otter,capybara,wild boar,kangaroo,pineapple,avocado,pumpkin,garlic,teapot,"
    "pliers,stethoscope,palm tree,iris,planet Saturn,tennis racket,basketball,traffic cone,tricycle,garbage truck,hot air balloon,"
    "toolbox,trophy".split(",")
)
"""Classes of the split test_u: never in a training scene, varied, none of them a common one."""

SHARED_SOUND = (
    frozenset({"badger", "beaver"}),
    frozenset({"goat", "mountain goat", "ram"}),
    frozenset({"camel", "dromedary"}),
)
"""Classes whose recordings are one and the same (found by cross-correlation): never two of them sounding in a scene."""

FARM_RECORDINGS = {
    "hen": "chickens",
    "cow": "cow",
    "dog": "dog",
    "duck": "duck",
    "horse": "horse",
    "owl": "owl",
    "pig": "pig",
    "sheep": "sheep",
}
"""Class -> recording of gcompris' farm, always held out."""

INSTRUMENT_RECORDINGS = {
    "cello": "cello",
    "cymbal": "cymbal",
    "drum kit": "drum_kit",
    "electric guitar": "electric_guitar",
    "classical guitar": "guitar",
    "trumpet": "trumpet",
    "violin": "violin",
}
"""Class -> recording of gcompris' instruments, always held out."""

MORE_RECORDINGS = {"dog": ("LRBark_1_LA_cut", "LRBark_3_LA_cut")}
"""Class -> recordings of gcompris' sound memory, used for training."""

HELD_OUT_STAMP_SOUNDS = frozenset(
    {"household/arttools/scissors_small_open", "animals/mammals/bovines/cow_white"}
)
"""Second recordings of a class within the stamps that training leaves alone."""

AMBIENCES = {
    "memory-sound": {
        "LRApplauses_1_LA_cut": "train",
        "LRRain_in_garden_01_LA_cut": "train",
        "LRFactory_noise_04_LA": "train",
        "LRTrain_slowing_down_01_LA_cut": "train",
        "LRFireballs_01_LA": "train",
    },
    "watercycle": {"harbor1": "test", "harbor2": "test"},
    "canal_lock": {"water_fill": "test"},
}
"""gcompris archive -> recording -> split, for background noise. Those with an animal or an instrument in them are left out."""
