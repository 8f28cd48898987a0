"""What the pictures show, by hand: the captions of the stamps are too loose to name a thing by.

One line a class:  name | files | other words for it | kinds it belongs to | verb of its sound

Files are stamps under the folder of the section, without suffix; `+` marks those whose own recording is used as the sound of
the thing. Left out: drawings, silent or foreign recordings, symbols, cut-outs with bad edges, mirror images.
"""

from __future__ import annotations

TABLE = """
[animals/amphibians]
frog | +frog frog-1 | | animal amphibian | croak
[animals/birds]
rosella | adelaide-rosella rainbow-lorikeet | parrot | animal bird |
white peahen | albino_peahen | peahen, peafowl | animal bird |
blackbird | +blackbird | | animal bird | sing
hen | +hen chicken_profile | chicken | animal bird | cluck
crane | crowned_crane | crowned crane | animal bird |
crow | +crow | raven | animal bird | caw
cuckoo | +cuckoo | | animal bird | call
duck | +duck +drake | mallard | animal bird | quack
goose | +gander | gander | animal bird | honk
guinea fowl | guineafowl helmeted_guineafowl | guineafowl | animal bird |
heron | +heron_greatblue_flying heron_greatblue | great blue heron | animal bird | croak
lark | +lark | | animal bird | sing
penguin | +penguin little-penguin magellanic_penguin | | animal bird | call
magpie | magpie | | animal bird |
ostrich | ostrich nandou | rhea | animal bird |
owl | +owl | white owl | animal bird | hoot
peacock | peacock | peafowl | animal bird |
pelican | pelican | | animal bird |
pigeon | pigeon | dove | animal bird |
flamingo | pink_flamingo | pink flamingo | animal bird |
quetzal | +quetzal | | animal bird | sing
rooster | +rooster | cock, cockerel, chicken, colorful rooster | animal bird | crow
seagull | +seagull silver-gull | gull, sea bird | animal bird | squawk
toucan | +tucan | | animal bird | squawk
turkey | +turkey | | animal bird | gobble
vulture | +vulture | | animal bird | hiss
[animals/fish]
blue groper | bluegroper | blue fish, groper | animal fish |
butterflyfish | butterflyfish | yellow fish | animal fish |
clownfish | clownfish | | animal fish |
trout | coraltrout | coral trout | animal fish |
dolphinfish | dolphinfish | | animal fish |
lionfish | lionfish | | animal fish |
lobster | lobster | crayfish | animal |
seahorse | seahorse | sea horse | animal |
shrimp | shrimp | prawn | animal |
striped fish | stripedfish | | animal fish |
[animals/insects]
slug | Brown_slug | brown slug | animal |
woodlouse | Woodlouse | | animal insect |
fly | fly | housefly | animal insect |
grasshopper | +grasshopper | cricket | animal insect | chirp
hornet | +hornet | wasp | animal insect | buzz
hoverfly | hoverfly | | animal insect |
mantis | mantis | praying mantis | animal insect |
moth | xanthia | | animal insect |
[animals/lizards]
iguana | iguana | lizard | animal reptile |
[animals/mammals/apes]
chimpanzee | +chimp | chimp, ape, monkey | animal ape | screech
gorilla | +gorilla | ape, monkey | animal ape | grunt
tamarin | tamarin_emperor | monkey, emperor tamarin | animal ape |
[animals/mammals/aquatic]
dolphin | +dolphin | | animal | click
orca | +orca | killer whale, whale | animal | call
otter | otter | | animal |
sea lion | +sea_lion | seal | animal | bark
whale | +whale | | animal | sing
[animals/mammals]
badger | +badger | | animal | growl
[animals/mammals/bears]
bear | +bear european-bear | brown bear | animal | growl
[animals/mammals/bovines]
bison | +bison | buffalo | animal cattle | grunt
bull | +bull | ox | animal cattle | bellow
cow | +cow +cow_white | | animal cattle | moo
gnu | gnu-baby-stand gnu-baby gnu-sitting gnu-stand | wildebeest | animal |
goat | +goat | | animal | bleat
antelope | indian_blackbuck | blackbuck | animal |
mountain goat | +mountaingoat | goat, chamois | animal | bleat
ram | +ram | sheep | animal | bleat
lamb | +sheep_lamb | sheep, baby sheep | animal | bleat
sheep | +sheep | | animal | bleat
yak | yak | | animal cattle |
zebu | zebu | cow | animal cattle |
[animals/mammals/camel]
camel | +camel | | animal | grunt
dromedary | +dromedary | camel | animal | grunt
[animals/mammals/cats]
lion | +lion lion-2 | | animal cat | roar
tiger | +tiger tiger_sumatran | | animal cat | roar
[animals/mammals/deer]
reindeer | +caribou | caribou, deer | animal | grunt
deer | +deer | stag | animal |
doe | +doe | deer, fawn | animal |
elk | wapiti | wapiti, deer | animal |
[animals/mammals/dogs]
dingo | dingo | dog, wild dog | animal |
dog | +dog | husky | animal | bark
fox | +fox | red fox | animal | bark
[animals/mammals]
elephant | +elephant | | animal | trumpet
[animals/mammals/equines]
donkey | +donkey donkey_eating | | animal | bray
horse | +horse | brown horse | animal | neigh
zebra | +zebra | | animal | bark
[animals/mammals]
ferret | +ferret | polecat | animal | squeak
giraffe | giraffe | | animal |
hippopotamus | +hippopotamus | hippo | animal | grunt
pig | +pig +pig_golden +pig_golden2 | | animal | grunt
rabbit | rabbit_little rodents/rabbit-2 +rodents/rabbit | bunny, hare | animal rodent | squeak
rhinoceros | rhino_black | rhino | animal |
wild boar | wildboar | boar, pig | animal |
[animals/mammals/rodents]
beaver | +beaver | | animal rodent | growl
capybara | capybara | | animal rodent |
marmot | marmot | groundhog | animal rodent |
mouse | +mouse | | animal rodent | squeak
rat | rat | mouse | animal rodent |
squirrel | +squirrel | | animal rodent | chatter
[animals/marsupials]
kangaroo | kangaroo | | animal |
koala | +koala | koala bear | animal | grunt
wombat | wombat | | animal |
[animals/shellfish]
abalone | abalone | shell, seashell | animal |
mussel | murray-mussel | shell, seashell | animal |
[animals/mammals/bears/toys]
teddy bear | edward_bear | bear, teddy | toy |
[clothes]
clothespin | clothespin_new | peg, wooden clothespin | |
[food/fruit]
apricot | Apricot_whole apricot | peach | food fruit |
cherries | Cherry_Stella | pair of cherries, cherry | food fruit |
strawberry | Strawberry2 | | food fruit |
apple | apple_fuji apple_granny_smith apple_green apple_red apple_sierra_beauty | | food fruit |
avocado | avocado | | food fruit |
banana | banana | | food fruit |
cherimoya | cherimoya | | food fruit |
bunch of grapes | grapes | grapes | food fruit |
kiwi | kiwi | kiwifruit | food fruit |
lemon | lemon | | food fruit |
orange | mandarine orange orange_seville | mandarin | food fruit |
mango | mango | | food fruit |
pear | pear | | food fruit |
pineapple | pineapple | | food fruit |
pomegranate | pomegranate | | food fruit |
raspberry | raspberry | | food fruit |
slice of lime | sliced_lime | lime, sliced lime | food fruit |
slice of orange | sliced_orange | orange, sliced orange | food fruit |
[food/nuts]
almond | almond | nut | food nut |
pecan | pecan | nut | food nut |
walnut | walnut | nut | food nut |
[food]
ginger root | spices/ginger | ginger | food vegetable |
[food/vegetables]
broccoli | broccoli | | food vegetable |
carrot | carrot | | food vegetable |
chili pepper | chilepepper | pepper, chili | food vegetable |
corn | corn | ear of corn, corn cob | food vegetable |
eggplant | eggplant | aubergine | food vegetable |
garlic | garlic garlics | | food vegetable |
lettuce | lettuce redlettuce | | food vegetable |
mushroom | mushroom | | food vegetable |
onion | onion | | food vegetable |
squash | pattypan_squash | | food vegetable |
bell pepper | pepper yellowpepper | pepper | food vegetable |
potato | potato | | food vegetable |
pumpkin | pumpkin_small | | food vegetable |
tomato | tomato | red tomato | food vegetable |
yam | yam | sweet potato | food vegetable |
[hobbies]
binoculars | binoculars | pair of binoculars | |
camera | +camera_35mm | | | click
[hobbies/music]
trumpet | brass/trumpet | | instrument brass | =play
cymbal | +percussion/cymbal_crash | crash cymbal | instrument percussion | =play
floor tom | +percussion/drum_tomtom_floor | drum, tom, red drum | instrument percussion | =play
drum kit | +percussion/drumkit | drums, drum set, drum | instrument percussion | =play
cello | +string/cello | | instrument strings | =play
electric guitar | string/guitar2 string/guitar_electric | guitar | instrument strings | =play
classical guitar | string/guitar_classical | guitar, acoustic guitar | instrument strings | =play
bass guitar | string/guitar_electric_bass | guitar, bass, electric bass | instrument strings | =play
violin | +string/violin | fiddle | instrument strings | =play
bassoon | +wind/bassoon | | instrument woodwind | =play
[household]
light bulb | Lightbulb | bulb, lightbulb | |
highlighter | arttools/highlighter | marker, pen | |
marker | arttools/pen_dryerase | pen, red marker | |
scissors | +arttools/scissors_small_closed +arttools/scissors_small_open | pair of scissors | tool | snip
gas cylinder | cylinder | gas bottle, red cylinder | |
mug | dishes/mug | cup | tableware |
pitcher | dishes/pitcher_small | jug | tableware |
teapot | dishes/teapot | kettle | tableware |
nutcracker | dishes/utensils/nutcracker | | tool |
pepper grinder | dishes/utensils/pepper_grinder | pepper mill | |
garbage can | garbagecan | trash can, bin | container |
compost bin | home_compost_bin | bin | container |
kettle | +kettle | electric kettle | | boil
key | key | | |
rubber duck | +rubberduck | duck, toy duck | toy | squeak
toilet | +toilet | | | flush
cement mixer | tools/cementmixer | concrete mixer | machine |
hammer | +tools/hammer | | tool | hit
mallet | +tools/mallet_metal | sledgehammer, hammer | tool | hit
tape measure | tools/measuring_tape | measuring tape | tool |
paintbrush | tools/paintbrush_large | brush | tool |
pliers | tools/plyers | pair of pliers | tool |
saw | +tools/saw | handsaw | tool | saw
spade | tools/spade | shovel | tool |
toolbox | tools/toolbox | red box | container |
wrench | tools/wrench_adjustable tools/wrench_plumbers tools/wrench | spanner | tool |
wheelie bin | wheelie_bin | bin, green bin, garbage can | container |
[medical]
thermometer | mercurythermometer | | tool |
stethoscope | stethoscope | | tool |
syringe | syringe | | tool |
[military]
firefighter | fireman240a | fireman, man, person | person |
parachutist | paratrooper | paratrooper, parachute, person | person |
tank | vehicles/bradley | armored vehicle | vehicle |
fighter jet | vehicles/f22_raptor | jet, plane, airplane, aircraft | vehicle |
armored vehicle | vehicles/infantry-stryker | tank | vehicle |
[naturalforces]
fire | fire | flame, flames | |
[people]
rag doll | toys/grannysmith | doll | toy |
[plants/flowers]
desert rose | adeenia | flower, pink flower | plant |
anemone | anemone_red | flower, red flower | plant |
balsam flower | bolsom | flower, white flower | plant |
daffodil | daffodil | flower | plant |
hibiscus | chemparathi flower10 | flower | plant |
flower | flower1 flower2 flower3 flower4 flower5 flower6 flower7 flower8 flower9 yellow-flower whitestar-petunia | | plant |
iris | iris | flower | plant |
marigold | marigold | flower, orange flower | plant |
pigface flower | pigface | flower, purple flower | plant |
gazania | red-gazania | flower | plant |
rose | rose | flower, red rose | plant |
[plants]
lavender | lavender | lavender plant, flower | plant |
bolete | mushrooms/cep-1 mushrooms/cep-2 mushrooms/cep | mushroom | |
thyme | thyme | thyme plant, bush | plant |
birch | trees/birch | tree, birch tree, bare tree | plant |
holly leaves | trees/holly_leaves | holly, leaves | plant |
oak | trees/holm_oak | tree, oak tree | plant |
palm tree | trees/liberia-palm | tree, palm | plant |
pine cone | trees/pinecone | pinecone, cone | plant |
nut tree | trees/tree336 | tree | plant |
[seasonal]
candle | candle | lit candle | |
candy cane | christmas/Candy_cane_photo_1 christmas/Candy_cane_photo_2 | | food |
Christmas tree | christmas/Christmas_Tree_photo | tree | |
Christmas pudding | christmas/Christmas_pudding | pudding, cake | food |
wooden toy | christmas/German_Christmas_toy | wooden figure, doll | toy |
pie | christmas/Mince_Pie | mince pie | food |
roast turkey | christmas/Roast_turkey | turkey, roast chicken | food |
wreath | christmas/xmaswreath | pine wreath | |
gravestone | halloween/grave-a halloween/grave-b halloween/grave-d halloween/grave-e halloween/grave-f halloween/grave-g halloween/grave-i | tombstone, headstone | |
stone cross | halloween/grave-c | cross, gravestone | |
[space]
moon | moon/moon_3qt moon/moon_full | full moon | planet |
Venus | planets/2_venus | | planet |
Earth | planets/3_earth | globe | planet |
Mars | planets/4_mars | | planet |
Jupiter | planets/5_jupiter | | planet |
Saturn | planets/6_saturn | planet with rings | planet |
Neptune | planets/7_uranus planets/8_neptune | Uranus | planet |
astronaut | spacewalk | spaceman, person | person |
space probe | voyager2 | satellite, probe | |
[sports]
Australian football | australian_rules_football | ball, football, red ball | ball-like |
basketball | basketball | ball | ball-like |
cricket ball | cricketball | ball | ball-like |
football | football | ball, American football | ball-like |
soccer ball | soccer | ball, football | ball-like |
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
car | auto/beetle auto/sedan auto/sportscar2 | | vehicle |
pickup truck | auto/truck | truck, pickup, car | vehicle |
dumper | construction/dumper | dump truck, truck | vehicle |
tricycle | cycle/pink_tricycle | pink tricycle, bike | vehicle |
fire truck | +emergency/firetruck | fire engine, truck, emergency car | vehicle | wail
hot air balloon | flight/balloon360 | balloon | vehicle |
airplane | flight/planes/747 | plane, aircraft | vehicle |
garbage truck | garbagetruck | truck | vehicle |
bus | masstransit/green_korean_bus | green bus | vehicle |
race car | race/indycar | racing car, car | vehicle |
sailing ship | ship/chineseJunk | ship, boat, sailboat | vehicle |
sailboat | ship/walnutBoat | boat, sailing boat | vehicle |
"""

UNSEEN = frozenset(
    "cuckoo,toucan,hippopotamus,koala,orca,bison,bassoon,rubber duck,grasshopper,camera,"
    "ostrich,pelican,seahorse,lobster,mantis,otter,capybara,wild boar,kangaroo,pineapple,avocado,pumpkin,garlic,teapot,"
    "pliers,stethoscope,palm tree,iris,Saturn,tennis racket,basketball,traffic cone,tricycle,garbage truck,hot air balloon,"
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

HELD_OUT_STAMP_SOUNDS = frozenset({"household/arttools/scissors_small_open", "animals/mammals/bovines/cow_white"})
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
